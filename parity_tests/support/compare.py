"""Differences between a run of a preset and its course's published table, seed by seed.

python -m parity_tests.support.compare runs/cs231n-20261120-174100/results.csv
"""

import sys
from pathlib import Path

import numpy as np

PUBLISHED = Path(__file__).parents[1] / "published"
ACCURACIES = ("train_accuracy", "val_accuracy")


def read(path: Path) -> np.ndarray:
    """A table of results, ours or a published one, as a structured array."""
    return np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding=None)


def differences(table: np.ndarray) -> dict[str, np.ndarray]:
    """Our accuracies less the published ones of the same grid: ``[cells, seeds]`` each.

    Raises:
      ValueError: the table is of no published grid.
    """
    for path in sorted(PUBLISHED.glob("*.csv")):
        published = read(path)
        seeds = table.reshape(len(published), -1) if len(table) % len(published) == 0 else table[:, None]
        if seeds.shape[0] == len(published) and all(
            np.allclose(seeds[axis].T, published[axis], rtol=1e-5) for axis in ("lr", "reg")
        ):
            return {name: seeds[name] - published[name][:, None] for name in ACCURACIES}
    raise ValueError("the table must be of a published grid, as the presets cs231n and eecs498 are")


if __name__ == "__main__":
    table = read(Path(sys.argv[1]))
    found = differences(table)
    per_seed = table.reshape(found["val_accuracy"].shape)

    def row(*cells: object) -> None:
        """Print one line."""
        print(("{:>6}" + "{:>18}" * 4 + "{:>10}").format(*cells))

    row("seed", "train, mean |d|", "mean d", "val, mean |d|", "mean d", "best val")
    for k, seed in enumerate(per_seed["seed"][0]):
        figures = [f(found[name][:, k]) for name in ACCURACIES for f in (lambda d: np.abs(d).mean(), np.mean)]
        row(seed, *(f"{figure:.4f}" for figure in figures), f"{per_seed['val_accuracy'][:, k].max():.4f}")
    means = [f(found[name].mean(axis=1)) for name in ACCURACIES for f in (lambda d: np.abs(d).mean(), np.mean)]
    row("mean", *(f"{figure:.4f}" for figure in means), "")
