"""The examples of each minibatch, as pure functions of a seed and the step: any part of a run can be drawn alone.

    replacement    each example drawn from all, as in both courses
    epochs         every example once, in a new random order each time
    blocks         the same, but of blocks that lie together on a disk, mixed within a window of them

The last minibatch of an epoch, where the examples are no multiple of it:

    continued      continues with the next epoch, so that none is smaller and no example is left out
    kept           is smaller
    dropped        is left out, with other examples in each epoch

They are drawn on the host, where it takes microseconds a step; in a compiled program, the generator took longer to
compile than the training.
"""

import math
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int, UInt64
from numpy.typing import NDArray

Sampling = Literal["replacement", "epochs", "blocks"]
LastBatch = Literal["continued", "kept", "dropped"]
ROUNDS = 4  # of the cipher, as many as make a pseudorandom permutation of a pseudorandom function
BLOCK = 2**6  # rows that lie together
WINDOW = 2**12  # blocks that are mixed


def minibatches(
    seed: int,
    steps: range,
    *,
    batch_size: int,
    num_examples: int,
    sampling: Sampling = "replacement",
    epoch_size: int | None = None,
) -> Int[NDArray, "T B"]:
    """Rows of the examples in each step's minibatch.

    Args:
      seed: of the generator.
      steps: the steps.
      batch_size: the number of examples in a minibatch.
      num_examples: the number of those that there are.
      sampling: how they are drawn.
      epoch_size: the number of those that an epoch draws, as `epoch_size` has it: its last minibatch may be smaller,
        and is then to be drawn alone. None if it continues with the next epoch.

    Raises:
      ValueError: there is no such sampling, or the steps have minibatches of two sizes.

    Example:
      >>> whole = minibatches(0, range(10), batch_size=4, num_examples=100)
      >>> tail = minibatches(0, range(6, 10), batch_size=4, num_examples=100)
      >>> bool((whole[6:] == tail).all())
      True
      >>> print(np.sort(minibatches(0, range(3), batch_size=4, num_examples=6, sampling="epochs"), axis=None))
      [0 0 1 1 2 2 3 3 4 4 5 5]
      >>> minibatches(0, range(1, 2), batch_size=4, num_examples=6, sampling="epochs", epoch_size=6).shape
      (1, 2)
    """
    check(sampling)
    if sampling == "replacement":
        words = -(-batch_size // 4) * 4  # the generator counts by four numbers of 64 bits
        stream = np.random.Philox(seed).advance(steps.start * words // 4)
        bits = stream.random_raw((len(steps), words))[:, :batch_size]
        # The upper half, as a fraction of the examples: NumPy keeps a generator's bits over versions, not its integers.
        return ((bits >> 32) * num_examples >> 32).astype(np.int64)
    ends = np.arange(steps.start, steps.stop + 1) * batch_size  # examples drawn so far
    if epoch_size is not None:
        epoch, step = np.divmod(np.arange(steps.start, steps.stop + 1), -(-epoch_size // batch_size))
        ends = epoch * epoch_size + step * batch_size
        if len(sizes := np.unique(np.diff(ends))) > 1:
            raise ValueError(f"steps must have minibatches of one size, got {steps} with {sizes.tolist()}")
    epoch, place = np.divmod(np.arange(ends[0], ends[-1]), epoch_size or num_examples)
    order = permuted if sampling == "epochs" else _by_blocks
    rows = [order(place[epoch == number], num_examples, (seed, number)) for number in np.unique(epoch).tolist()]
    return np.concatenate(rows).reshape(len(steps), -1)


def epoch_size(num_examples: int, batch_size: int, last_batch: LastBatch, sampling: Sampling = "epochs") -> int | None:
    """The number of examples that an epoch draws; None if its last minibatch continues with the next.

    Raises:
      ValueError: there is no such sampling; or a last minibatch is dropped that is the only one.

    Example:
      >>> epoch_size(10, 4, "kept"), epoch_size(10, 4, "dropped"), epoch_size(10, 4, "continued")
      (10, 8, None)
    """
    check(sampling)
    if last_batch not in get_args(LastBatch):
        raise ValueError(f"last_batch must be one of {', '.join(get_args(LastBatch))}, got {last_batch!r}")
    if last_batch == "continued":
        return None
    if sampling == "replacement":
        raise ValueError(f"sampling must be epochs or blocks for a last batch that is {last_batch}, got replacement")
    if last_batch == "kept":
        return num_examples
    if batch_size > num_examples:
        raise ValueError(f"batch_size must be at most the {num_examples} examples of an epoch, got {batch_size}")
    return num_examples // batch_size * batch_size


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
