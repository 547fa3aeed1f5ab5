"""Minibatches as pure functions of a seed and the step."""

import itertools

import numpy as np
import pytest

from jaxcls import sampling

# Around the sides of the cipher's squares, and blocks with a rest.
LENGTHS = [1, 2, 5, 63, 64, 99, 100, 101, 5000, 600_001]


@pytest.mark.parametrize("how", ["epochs", "blocks"])
@pytest.mark.parametrize("length", LENGTHS)
def test_an_epoch_has_every_example_once(length: int, how: sampling.Sampling) -> None:
    """In another order each, and with another seed."""
    batches = sampling.minibatches(3, range(3 * length), batch_size=1, num_examples=length, sampling=how)
    epochs = batches.reshape(3, length)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(length), (3, 1)))
    other = sampling.minibatches(4, range(length), batch_size=1, num_examples=length, sampling=how)[:, 0]
    if length > 10:
        assert all((one != two).mean() > 0.9 for one, two in itertools.combinations([*epochs, other], 2))


@pytest.mark.parametrize("how", ["replacement", "epochs", "blocks"])
def test_any_part_of_a_run_is_drawn_alone(how: sampling.Sampling) -> None:
    draw = {"batch_size": 7, "num_examples": 3001, "sampling": how}
    whole = sampling.minibatches(0, range(2000), **draw)
    for start, stop in ((0, 1), (428, 430), (1990, 2000)):
        np.testing.assert_array_equal(sampling.minibatches(0, range(start, stop), **draw), whole[start:stop])


@pytest.mark.parametrize("how", ["epochs", "blocks"])
def test_the_last_minibatch_of_an_epoch_is_smaller_or_left_out(how: sampling.Sampling) -> None:
    """Of the permutation that is drawn when it continues with the next epoch."""
    draw = {"num_examples": 99, "sampling": how}
    orders = sampling.minibatches(3, range(2), batch_size=99, **draw)
    for last, sizes in (("kept", [20, 20, 20, 20, 19]), ("dropped", [20, 20, 20, 20])):
        size = sampling.epoch_size(99, 20, last, how)
        steps = [range(step, step + 1) for step in range(2 * len(sizes))]
        batches = [sampling.minibatches(3, step, batch_size=20, epoch_size=size, **draw)[0] for step in steps]
        assert [len(batch) for batch in batches] == 2 * sizes
        for epoch, order in enumerate(orders):
            found = np.concatenate(batches[epoch * len(sizes) : (epoch + 1) * len(sizes)])
            np.testing.assert_array_equal(found, order[:size])
    with pytest.raises(
        ValueError, match=r"^steps must have minibatches of one size, got range\(0, 5\) with \[19, 20\]$"
    ):
        sampling.minibatches(3, range(5), batch_size=20, epoch_size=99, **draw)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((99, 20, "smaller", "epochs"), "last_batch must be one of continued, kept, dropped, got 'smaller'"),
        ((99, 100, "dropped", "epochs"), "batch_size must be at most the 99 examples of an epoch, got 100"),
        (
            (99, 20, "kept", "replacement"),
            "sampling must be epochs or blocks for a last batch that is kept, got replacement",
        ),
    ],
)
@pytest.mark.usefixtures("no_type_checker")
def test_a_last_minibatch_that_cannot_be_drawn_is_one_line(options: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}$"):
        sampling.epoch_size(*options)


def test_a_permutation_looks_random() -> None:
    """Every number is as often at every place, and neighbours are as far apart as two numbers are."""
    counts = np.zeros((50, 50))
    for key in range(2000):
        counts[np.arange(50), sampling.permuted(np.arange(50), 50, (key,))] += 1
    chi_square = np.sum((counts - 40) ** 2 / 40)
    assert abs(chi_square - 49**2) < 5 * np.sqrt(2 * 49**2)
    order = sampling.permuted(np.arange(100_000), 100_000, (0,))
    assert abs(np.abs(np.diff(order)).mean() / 100_000 - 1 / 3) < 0.005


def test_blocks_are_read_in_few_pieces_and_mixed() -> None:
    """The rows of a window lie in as many blocks as it has, and are of all classes though they be sorted by class."""
    window, num_windows, classes = sampling.BLOCK * sampling.WINDOW, 5, 1000
    length = num_windows * window + 999
    rows = np.sort(sampling._by_blocks(np.arange(window), length, (0, 0)))
    assert np.count_nonzero(np.diff(rows) > 1) < 1.01 * sampling.WINDOW
    ends = [np.sort(sampling._by_blocks(np.arange(window), length, (0, epoch))) for epoch in range(3)]
    begin = {np.bincount(each[1:][np.diff(each) > 1] % sampling.BLOCK).argmax() for each in ends}
    assert len(begin) > 1  # blocks begin at another row in every epoch
    counts = np.bincount(rows * classes // length, minlength=classes)
    assert counts.min() > 0.5 * window / classes
    batch = sampling.minibatches(0, range(1), batch_size=512, num_examples=length, sampling="blocks")
    assert len(np.unique(batch * classes // length)) > 350  # of 512 with replacement, 401 on average


@pytest.mark.usefixtures("no_type_checker")
def test_an_unknown_sampling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^sampling must be one of replacement, epochs, blocks, got 'shuffled'$"):
        sampling.minibatches(0, range(1), batch_size=1, num_examples=1, sampling="shuffled")
