"""Search for the best two-layer net on CIFAR-10 in minutes (EECS 498-007).

python examples/two_layer_search.py                                # two cores
python examples/two_layer_search.py --points 64 --hidden 4096 8192 # a GPU
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import tyro

from jaxcls import data, sweep
from jaxcls.artifacts import folder, plots, record, report
from jaxcls.classifier import two_layer_net
from jaxcls.cli import console
from jaxcls.grid import Points
from jaxcls.sweep import Figures, Halving

BATCH, EMA = 500, 0.998


def main(
    points: int = 12,
    hidden: tuple[int, ...] = (512, 1024, 2048),
    steps: int = 5000,
    data_dir: Path | None = None,
    out: Path | None = None,
) -> int:
    """Train random nets on pictures and their mirror images, the best of them to the end; score averaged weights.

    Args:
      points: Nets to begin with.
      hidden: Hidden units to choose from.
      steps: Training steps of the nets that stay.
      data_dir: Folder with CIFAR-10; downloaded once into the user's cache if not given.
      out: Folder of the run, which must be empty or not exist.
    """
    splits = data.mirrored(data.eecs498(data.load_cifar10(data_dir)))
    ranges = {"lr": (0.03, 0.3), "reg": (1e-4, 2e-3), "momentum": (0.8, 0.95), "hidden": list(hidden)}
    halving = Halving(keep=1 / 4, rungs=(steps * 8 // 100, steps * 3 // 10))
    with folder.claim(out or Path("runs") / time.strftime("search-%Y%m%d-%H%M%S")) as place:
        # The test set is scored once, by the best of the nets that were trained to the end.
        result = sweep.run(
            splits,
            Points.random(points, **ranges),
            steps=steps,
            batch_size=BATCH,
            classifier=two_layer_net(init_scale=1e-2),
            optimizer="nesterov",
            halving=halving,
            ema=EMA,
            callback=twentieths(),
        )
        asked_for = {"ranges": ranges, "steps": steps, "batch_size": BATCH, "ema": EMA, "rungs": halving.rungs}
        record.write(place, result, splits, {"kind": "sweep", "config": asked_for})
        plots.save(place, result, splits)
        report.write(place)
    print(f"\n{'lr':>10} {'reg':>10} {'momentum':>9} {'hidden':>7} {'steps':>7} {'val acc':>9} {'rank':>5}")
    for row in result.table:
        cell = f"{row['lr']:10.3g} {row['reg']:10.3g} {row['momentum']:9.3f} {row['hidden']:7d}"
        trained = row["stopped_at"] if row["stopped_at"] >= 0 else steps
        scores = f"{trained:7,} {row['val_accuracy']:9.4f} {row['rank']:5d}"
        print(cell, scores if row["rank"] else f" diverged at step {row['diverged_at']}")
    if result.best is None:
        print("every net diverged: try lower learning rates")
        return 1
    print(f"time      {result.timings.total_s:.0f} s, of it {result.timings.compile_s:.0f} s compiling")
    accuracy = result.table["val_accuracy"][result.best]
    print(f"best      {accuracy:.4f} on val, {result.test_accuracy:.4f} on test, which was scored once")
    print(f"wrote     {place}/")
    return 0


def twentieths() -> Callable[[Figures], None]:
    """A callback that prints the loss twenty times a run."""
    printed = 0

    def callback(row: Figures) -> None:
        nonlocal printed
        if (part := 20 * row["step"] // row["steps"]) > printed:
            printed = part
            print(f"          {row['step']:7,} steps, {row['cells']} nets, loss {row['loss']:.3f}", flush=True)

    return callback


if __name__ == "__main__":
    sys.exit(console.run(lambda: tyro.cli(main, description="\n\n".join(filter(None, __doc__.splitlines())))))
