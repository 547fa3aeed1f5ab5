"""The examples of each minibatch, as pure functions of a seed and the step: any part of a run can be drawn alone.

    replacement    each example drawn from all, as in both courses
    epochs         every example once, in a new random order each time
    blocks         the same, but of blocks that lie together on a disk, mixed within a window of them

They are drawn on the host, where it takes microseconds a step; in a compiled program, the generator took longer to
compile than the training.
"""

import math
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int, UInt64
from numpy.typing import NDArray

Sampling = Literal["replacement", "epochs", "blocks"]
ROUNDS = 4  # of the cipher, as many as make a pseudorandom permutation of a pseudorandom function
BLOCK = 2**6  # rows that lie together
WINDOW = 2**12  # blocks that are mixed


def minibatches(
    seed: int, steps: range, *, batch_size: int, num_examples: int, sampling: Sampling = "replacement"
) -> Int[NDArray, "T B"]:
    """Rows of the examples in each step's minibatch.

    Without replacement, a minibatch that begins at the end of one epoch continues with the next, so that none is
    smaller and no example is left out.

    Raises:
      ValueError: there is no such sampling.

    Example:
      >>> whole = minibatches(0, range(10), batch_size=4, num_examples=100)
      >>> tail = minibatches(0, range(6, 10), batch_size=4, num_examples=100)
      >>> bool((whole[6:] == tail).all())
      True
      >>> print(np.sort(minibatches(0, range(3), batch_size=4, num_examples=6, sampling="epochs"), axis=None))
      [0 0 1 1 2 2 3 3 4 4 5 5]
    """
    check(sampling)
    if sampling == "replacement":
        words = -(-batch_size // 4) * 4  # the generator counts by four numbers of 64 bits
        stream = np.random.Philox(seed).advance(steps.start * words // 4)
        bits = stream.random_raw((len(steps), words))[:, :batch_size]
        # The upper half, as a fraction of the examples: NumPy keeps a generator's bits over versions, not its integers.
        return ((bits >> 32) * num_examples >> 32).astype(np.int64)
    first, count = steps.start * batch_size, len(steps) * batch_size
    epoch, place = np.divmod(np.arange(first, first + count), num_examples)
    order = permuted if sampling == "epochs" else _by_blocks
    rows = [order(place[epoch == number], num_examples, (seed, number)) for number in np.unique(epoch).tolist()]
    return np.concatenate(rows).reshape(len(steps), batch_size)


def check(sampling: str) -> None:
    """Raise unless there is such a sampling."""
    if sampling not in get_args(Sampling):
        raise ValueError(f"sampling must be one of {', '.join(get_args(Sampling))}, got {sampling!r}")


def permuted(places: Int[NDArray, "M"], length: int, key: tuple[int, ...]) -> Int[NDArray, "M"]:
    """The numbers at some places of a random permutation of ``range(length)``, of which the rest is never drawn.

    A Feistel cipher on pairs of digits permutes the square just above ``length``; what falls outside goes round again.

    Reference:
      J. Black and P. Rogaway, *Ciphers with Arbitrary Finite Domains*, CT-RSA 2002.

    Example:
      >>> print(permuted(np.arange(8), 8, key=(0,)))
      [3 1 0 4 6 5 7 2]
    """
    side = math.isqrt(length - 1) + 1
    keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)
    found, outside = np.array(places, np.int64), np.arange(len(places))
    while len(outside):
        left, right = np.divmod(found[outside], side)
        for each in keys:
            left, right = (
                right,
                (left + (_hash(right.astype(np.uint64) + each) % np.uint64(side)).astype(np.int64)) % side,
            )
        found[outside] = left * side + right
        outside = outside[found[outside] >= length]
    return found


def _by_blocks(places: Int[NDArray, "M"], length: int, key: tuple[int, ...]) -> Int[NDArray, "M"]:
    """The numbers at some places of a permutation that mixes one window of blocks after another.

    Each window has one of as many neighbouring blocks as there are windows, so that it is like the whole though this be
    sorted. The blocks begin at a random row, another one in every epoch; the rows left over beyond them are mixed with
    the last window.
    """
    num_windows = max(1, round(length / (BLOCK * WINDOW)))
    num_blocks = length // (num_windows * BLOCK)  # of a window
    size = num_blocks * BLOCK
    if not size:
        return permuted(places, length, key)
    window, found = np.minimum(places // size, num_windows - 1), np.empty(len(places), np.int64)
    for number in np.unique(window).tolist():
        own = size if number < num_windows - 1 else length - number * size
        inside = window == number
        mixed = permuted(places[inside] - number * size, own, (*key, number))
        group, within = np.divmod(mixed, BLOCK)
        turn = _hash(group.astype(np.uint64) + np.uint64(key[-1] << 32)) % np.uint64(num_windows)
        block = group * num_windows + (number + turn.astype(np.int64)) % num_windows
        found[inside] = np.where(mixed < size, block * BLOCK + within, num_windows * size + mixed - size)
    shift = int(permuted(np.zeros(1, int), length, (*key, num_windows))[0])
    return (found + shift) % length


def _hash(numbers: UInt64[NDArray, "M"]) -> UInt64[NDArray, "M"]:
    """Numbers mixed to look random, by the finaliser of SplitMix64."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
