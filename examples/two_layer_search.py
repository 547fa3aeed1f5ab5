"""Search for the best two-layer net on CIFAR-10 in minutes (EECS 498-007).

python examples/two_layer_search.py                               # two cores
python examples/two_layer_search.py --hidden 8192 --steps 20000   # a GPU
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optax
import tyro

from jaxcls import data, optimizers, sweep
from jaxcls.artifacts import plots, record
from jaxcls.artifacts.folder import claim
from jaxcls.classifier import two_layer_net
from jaxcls.cli import console
from jaxcls.data import Splits
from jaxcls.grid import Grid
from jaxcls.result import SweepResult
from jaxcls.sweep import Figures

BATCH = 500
DECAY = 0.95


def main(hidden: int = 1024, steps: int = 6400, data_dir: Path | None = None, out: Path | None = None) -> int:
    """Search a coarse grid of small nets for lr and reg, then train large nets around the best.

    Args:
      hidden: Hidden units of the large nets.
      steps: Training steps of the large nets.
      data_dir: Folder with CIFAR-10; downloaded once into the user's cache if not given.
      out: Folder of the run, which must be empty or not exist.
    """
    splits = data.eecs498(data.load_cifar10(data_dir))
    small = Grid(lr=[0.1, 0.3, 1.0, 3.0], reg=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2], hidden=[128])
    with claim(out or Path("runs") / time.strftime("search-%Y%m%d-%H%M%S")) as folder:
        # The test set is scored once, by the best of the large nets.
        found = search(replace(splits, test=None), small, 1200)
        if found.best is None:
            raise ValueError("every small net diverged")
        cell = small.cells()[found.best]
        # A larger net, trained for longer, needs a larger penalty.
        large = Grid([cell["lr"]], [cell["reg"] * factor for factor in (1, 2, 4)], hidden=[hidden])
        result = search(splits, large, steps)
        search_of = {"small": small.axes, "large": large.axes, "steps": steps, "batch_size": BATCH, "decay": DECAY}
        record.write(folder, result, splits, search_of)
        plots.save(folder, result, splits)
    if result.best is None:
        print(f"every large net diverged at lr {cell['lr']:g}; the small ones' table is above")
        return 1
    accuracy = result.table["val_accuracy"][result.best]
    print(f"best      {accuracy:.4f} on val, {result.test_accuracy:.4f} on test, which was scored once")
    print(f"wrote     {folder}/")
    return 0


def search(splits: Splits, grid: Grid, steps: int) -> SweepResult:
    """Train every cell of a grid; print the accuracy of each."""
    print(f"\ntraining  {len(grid)} nets, {steps:,} steps of {BATCH} examples")
    result = sweep.run(
        splits,
        grid,
        steps=steps,
        batch_size=BATCH,
        classifier=two_layer_net(init_scale=1e-2),
        optimizer=optimizers.decayed(optax.sgd, DECAY, optimizers.steps_per_epoch(len(splits.train.y), BATCH)),
        history=True,
        callback=tenths(),
    )
    print(f"\n{'lr':>10} {'reg':>10} {'hidden':>7} {'train acc':>10} {'val acc':>9} {'rank':>5}")
    for row in result.table:
        cell = f"{row['lr']:10.3g} {row['reg']:10.3g} {row['hidden']:7d}"
        scores = f"{row['train_accuracy']:10.4f} {row['val_accuracy']:9.4f} {row['rank']:5d}"
        print(cell, scores if row["rank"] else f" diverged at step {row['diverged_at']}")
    print(f"time      {result.timings.total_s:.0f} s, of it {result.timings.compile_s:.0f} s compiling")
    return result


def tenths() -> Callable[[Figures], None]:
    """A callback that prints the loss ten times a run."""
    printed = 0

    def callback(row: Figures) -> None:
        nonlocal printed
        if (tenth := 10 * row["step"] // row["steps"]) > printed:
            printed = tenth
            print(f"          {row['step']:7,} steps, loss {row['loss']:.3f}", flush=True)

    return callback


if __name__ == "__main__":
    sys.exit(console.run(lambda: tyro.cli(main, description="\n\n".join(filter(None, __doc__.splitlines())))))
