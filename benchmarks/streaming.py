"""Features larger than memory: one pass over a file feeds all heads, against what reads it otherwise.

python benchmarks/streaming.py     # three minutes; the file is in the page cache
python benchmarks/streaming.py --examples 4000000 --heads 48 --peers ""     # 6 GB; jaxcls alone

All train the same number of softmax classifiers for an epoch, on float16 features in an .npy, standardised:

    jaxcls, in memory    features loaded to the device first, which is counted
    jaxcls, streamed     read by the host while the device trains; then one head instead, and nets
    torch, shared        a DataLoader over the memory map, a loop of heads on each batch
    torch, in turn       the same, one head after another, each with a pass of its own

Bytes are those asked of the file, for training and for validation on 2,000 examples. Then six values of reg by L-BFGS,
streamed, all at once and one after another; the classes are few, each made of several. At last, the accuracy after an
epoch on the same examples sorted by class, sampled in epochs and in blocks, over five seeds.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from run import HERE, command, slug, write
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from jaxcls import classifier, data, probe, sweep
from jaxcls.artifacts import record
from jaxcls.data.rows import OnDisk
from jaxcls.grid import Grid
from jaxcls.result import SweepResult
from jaxcls.sampling import Sampling
from jaxcls.solver import lbfgs

NUM_VAL, BLOCK = 2_000, 50_000
FEW, REG = 10, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # classes for the solver, and its values
warnings.filterwarnings("ignore", message="os.fork")  # torch's workers do not use JAX
PEERS = {"torch, shared": True, "torch, in turn": False}


@dataclass(frozen=True)
class Config:
    """The shapes to run."""

    examples: int = 200_000
    """In train."""
    features: int = 768
    """Of each example."""
    classes: int = 100
    """Of the labels."""
    heads: int = 16
    """Learning rates."""
    batch_size: int = 512
    """Examples in a minibatch."""
    peers: tuple[str, ...] = tuple(PEERS)
    """The peers to run."""


class Counted(OnDisk):
    """A file that counts the bytes that are read of it."""

    count = 0

    def _fill(self, file: int, into: memoryview, at: int) -> None:
        Counted.count += len(into)
        super()._fill(file, into, at)


class Mapped(Dataset):
    """Batches of a memory map, counted."""

    count = 0

    def __init__(self, X: NDArray, y: NDArray, rows: NDArray) -> None:
        self.X, self.y, self.rows = X, y, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.rows[batch]
        return torch.from_numpy(self.X[rows]).float(), torch.from_numpy(self.y[rows])


def main(config: Config) -> int:
    """Print a line for each way, and write the figures; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        path, y = Path(folder) / "features.npy", made_up(Path(folder) / "features.npy", config)
        X = np.load(path, mmap_mode="r")
        file = Counted(path, X.offset, X.shape, X.dtype)
        val, train = np.split(np.random.default_rng(0).permutation(len(y)), [NUM_VAL])
        names = tuple(map(str, range(config.classes)))
        source = data.Source("made up", data.Rows([file]), y, np.sort(train), np.sort(val), np.sort(val), names)
        started = time.perf_counter()
        splits = data.standard(source)
        print(f"{config.examples * config.features * 2 / 1e9:.2f} GB; checks, means and deviations ", end="")
        print(f"{time.perf_counter() - started:.1f} s\n")
        print(f"{'':20} {'s':>7} {'rows/s':>9} {'GB read':>8} {'val acc':>8}")
        rates, rows = np.logspace(-2, 0, config.heads).tolist(), {}
        heads = Grid(rates, [0.0])
        rows["jaxcls, in memory"] = ours(splits, heads, config, stream=False)
        rows["jaxcls, streamed"] = ours(splits, heads, config, stream=True)
        rows["jaxcls, streamed, 1"] = ours(splits, Grid(rates[-1:], [0.0]), config, stream=True)
        for hidden in ((64,), (64, 2048)):  # programs of their own
            nets = Grid(rates[-1:], [0.0], hidden=hidden)
            rows[f"nets of {', '.join(map(str, hidden))}"] = ours(splits, nets, config, stream=True)
        for name in filter(None, config.peers):
            rows[name] = theirs(splits, X, y, rates, config, shared=PEERS[name])
        few = replace(source, y=y % FEW, class_names=names[:FEW])
        for columns in (lbfgs.COLUMNS, 1):
            lbfgs.COLUMNS = columns
            rows[f"L-BFGS, {min(columns // FEW, len(REG)) or 1} at once"] = solved(data.standard(few))
        mixed = {sampling: sorted_by_class(splits, rates, sampling, config) for sampling in ("epochs", "blocks")}
    first = rows["jaxcls, streamed"]
    for name, row in rows.items():
        print(f"{name:20} {row['seconds']:7.1f} {config.examples / row['seconds']:9,.0f} ", end="")
        print(f"{row['bytes'] / 1e9:8.2f} {row['accuracy']:8.3f}   {row['seconds'] / first['seconds']:.2f}")
    for sampling, accuracy in mixed.items():
        print(f"sorted by class, {sampling}: {np.mean(accuracy):.4f}, deviation {np.std(accuracy, ddof=1):.4f}")
    measured = {**record.machine(), "versions": record.versions(), "config": vars(config), "ways": rows}
    measured["sorted by class"] = mixed
    write(measured, HERE / "results" / f"streaming-{slug()}.json")
    return 0


def made_up(path: Path, config: Config) -> NDArray[np.integer]:
    """Write features of classes that overlap; their labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, config.classes, config.examples + NUM_VAL)
    centres = 0.12 * rng.standard_normal((config.classes, config.features), dtype=np.float32)
    X = np.lib.format.open_memmap(path, "w+", np.float16, (len(y), config.features))
    for first in range(0, len(y), BLOCK):
        of = y[first : first + BLOCK]
        X[first : first + BLOCK] = centres[of] + rng.standard_normal((len(of), config.features), dtype=np.float32)
    X.flush()
    return y


def ours(splits: data.Splits, grid: Grid, config: Config, *, stream: bool) -> dict[str, Any]:
    """An epoch of all cells."""
    steps, before = config.examples // config.batch_size, Counted.count
    model = classifier.two_layer_net(init="uniform") if grid.hidden else classifier.linear()
    result = sweep.run(
        splits, grid, steps=steps, batch_size=config.batch_size, classifier=model, sampling="epochs", stream=stream
    )
    return told(result, before)


def solved(splits: data.Splits) -> dict[str, Any]:
    """All values of reg by the solver, its second call."""
    for _ in range(2):
        before = Counted.count
        result = probe.run(splits, REG, stream=True)
    return told(result, before)


def told(result: SweepResult, before: int) -> dict[str, Any]:
    """Seconds of training, bytes that were read since then, and the best accuracy on val."""
    accuracy = float(result.table["val_accuracy"].max())
    return {"seconds": result.timings.run_s, "bytes": Counted.count - before, "accuracy": accuracy}


def sorted_by_class(splits: data.Splits, rates: Sequence[float], sampling: Sampling, config: Config) -> list[float]:
    """Accuracies on val of five seeds, at the middle rate, after an epoch of examples that lie class by class."""
    order = np.argsort(splits.train.y, kind="stable")
    train = data.Split(splits.train[:][order], splits.train.y[order], None, splits.mean, splits.scale)
    val = replace(splits.val, raw=splits.val[:], rows=None, digest="")
    grid = Grid(rates[len(rates) // 2 : len(rates) // 2 + 1], [0.0], range(5))
    steps = config.examples // config.batch_size
    found = sweep.run(
        replace(splits, train=train, val=val), grid, steps=steps, batch_size=config.batch_size, sampling=sampling
    )
    return found.table["val_accuracy"].tolist()


def theirs(
    splits: data.Splits, X: NDArray, y: NDArray, rates: Sequence[float], config: Config, *, shared: bool
) -> dict[str, Any]:
    """An epoch of all heads in torch."""
    train, width = splits.train.rows, config.features * X.dtype.itemsize
    assert train is not None
    mean, scale = (torch.tensor(each, dtype=torch.float32) for each in (splits.mean, splits.scale))
    heads = [nn.Linear(config.features, config.classes) for _ in rates]
    optimizers = [torch.optim.SGD(head.parameters(), lr) for head, lr in zip(heads, rates, strict=True)]
    dataset = Mapped(X, y, train)
    sampler = BatchSampler(RandomSampler(dataset), config.batch_size, drop_last=True)
    started = time.perf_counter()
    for some in [range(len(heads))] if shared else [[k] for k in range(len(heads))]:
        for batch, labels in DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=1):
            standardised = (batch - mean) / scale
            for k in some:
                optimizers[k].zero_grad()
                nn.functional.cross_entropy(heads[k](standardised), labels).backward()
                optimizers[k].step()
    seconds = time.perf_counter() - started
    features = torch.tensor(splits.val.X)
    accuracies = [float((head(features).argmax(1).numpy() == splits.val.y).mean()) for head in heads]
    passes = 1 if shared else len(heads)
    return {"seconds": seconds, "bytes": passes * len(sampler) * config.batch_size * width, "accuracy": max(accuracies)}


if __name__ == "__main__":
    sys.exit(command(main, Config, "\n\n".join(filter(None, (__doc__ or "").splitlines()))))
