"""The lines that ``jaxcls probe`` prints."""

from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxcls.cli import console, protocols
from jaxcls.cli.probe_config import FILES, SOLVERS, Config, as_c, by_c
from jaxcls.data import Splits
from jaxcls.grid import Grid
from jaxcls.metrics import Metric
from jaxcls.result import SweepResult
from jaxcls.table import SELECT, best_first, tied

MOST_ROWS = 12  # of the table, on the screen


def announce(config: Config, splits: Splits, grid: Grid, out: Path) -> None:
    """Print the data and the grid of the probe that is about to start."""
    axes = " x ".join(f"{len(values)} {axis}" for axis, values in (grid.varied or grid.axes).items())
    count = np.bincount(splits.train.y, minlength=splits.num_classes)
    roles = ("train", "test") if config.folds else ("train", "val", "test")
    console.print_data(splits, roles, f" of {count.min():,} to {count.max():,} in train")
    print(f"grid      {axes} = {console.counted(len(grid), 'cell')}, {config.solver}", end="")
    print(f", {config.folds} folds" if config.folds else "")
    if config.solver not in SOLVERS:
        steps = f"{config.epochs:,} epochs" if config.epochs else f"{config.steps:,} steps"
        print(f"          {steps} in batches of {config.batch_size:,} examples")
    if config.shots:
        print(f"shots     {config.shots} of each class, {'1 try' if config.tries == 1 else f'{config.tries} tries'}")
    if config.protocol != "standard":
        print(f"protocol  {config.protocol}{changed(config)}")
    print(f"folder    {out}/")


def changed(config: Config) -> str:
    """The flags that differ from those of the protocol, as words to be put after its name."""
    published = {field.name: field.default for field in fields(Config)} | protocols.PROTOCOLS[config.protocol]
    about = {*FILES, "protocol", "seed", "memory", "out", "quiet", "json", "resume", "stream"}
    differing = [name for name, value in published.items() if name not in about and getattr(config, name) != value]
    others = [f"--{name.replace('_', '-')}" for name in differing]
    return f", but for {' '.join(others)}" if others else ""


def report(
    config: Config,
    result: SweepResult,
    splits: Splits,
    more: dict[str, dict[str, Metric]],
    tries: dict[str, dict[str, float]],
    paths: list[Path],
    seconds: dict[str, float],
) -> None:
    """Print the best cells, the scores of the best one, and the files written."""
    table, axes = result.table, list(result.grid.varied or result.grid.axes)
    shown, select = best_first(table["rank"])[:MOST_ROWS], result.select
    third = "mean-per-class" if select == "accuracy" else select
    heads = f"{'train acc':>10} {'val acc':>9} {'per class' if third == 'mean-per-class' else third:>10} {'rank':>5}"
    print("\n" + " ".join(f"{axis:>{width(axis)}}" for axis in axes), heads)
    for row in table[np.sort(shown)]:
        cell = " ".join(f"{row[axis]:{width(axis)}.4g}" for axis in axes)
        scores = f"{row['train_accuracy']:10.4f} {row['val_accuracy']:9.4f} {row[SELECT[third][0]]:10.4f}"
        print(f"{cell} {scores} {row['rank']:5d}")
    if len(table) > MOST_ROWS:
        print(f"... the best {MOST_ROWS} of {len(table)} cells; all are in {paths[0].parent}/results.csv")
    if not config.shots:
        console.print_scored(result, splits)
    if config.solver == "lbfgs":
        report_solved(config, table)
    if result.best is None:
        print("\nevery cell diverged: " + ("try lower learning rates" if result.grid.lr else "scale the features"))
        return
    row = table[result.best]
    by = f"the mean of {config.folds} folds" if config.folds else "val"
    named = f" (C {as_c(config, splits, row['reg']):.4g})" if by_c(config) else ""
    print(f"best      {', '.join(f'{axis} {row[axis]:.4g}' for axis in axes)}{named}: ", end="")
    print(f"{row[result.column]:.4f} on {by}{result.on_val}")
    console.print_ties(result, splits)
    console.print_one_se(result, splits)
    if len(tied(table, select)) > 1 and not (config.folds or config.refit or config.shots):
        print(f"          --folds 5 scores them on all of the {len(splits.train.y) + len(splits.val.y):,}")
    scale = {"lr": config.base_batch / config.batch_size} if config.base_batch else {}
    console.print_edges(result, scale)
    if result.params is None:
        print("          it diverged when it was trained again: try lower learning rates")
    if config.refit and not config.folds and not config.shots:
        alike = ", with the same C" if by_c(config) else ""
        print(f"refit     on the {len(splits.train) + len(splits.val):,} of train and val{alike}")
    if tries:
        print(f"test      mean and deviation of {config.tries} tries, {config.shots} examples of each class")
        for name, each in tries.items():
            print(f"          {name.replace('_', ' '):<18} {each['mean']:.4f}  {each['deviation']:.4f}")
    else:
        for name, scored in {"": result.metrics, **more}.items():
            console.print_metrics(scored, name)
    console.print_times(result.timings, seconds)
    console.print_wrote(paths)
    console.print_prediction(paths[0].parent, result)


def width(axis: str) -> int:
    """Characters of a column of the table."""
    return max(10, len(axis))


def report_solved(config: Config, table: NDArray) -> None:
    """Print how near the optimum the values are."""
    gap, converged = table["gap"] / table["train_loss"], table["converged"]
    print(f"\nsolved    {converged.sum()} of {len(table)} converged", end="")
    how_near = f", to within {gap[converged].max():.0e} of the least loss{'' if config.certify else ', estimated'}"
    print(how_near if converged.any() else "")
    if len(missed := table["reg"][~converged]):
        further = "" if config.float64 else "; --float64 goes further"
        print(f"          not those from {missed.min():.2g} to {missed.max():.2g}, ", end="")
        print(f"which may be {gap[~converged].max():.0e} above it{further}")
