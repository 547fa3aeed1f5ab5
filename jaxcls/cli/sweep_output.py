"""Output of ``jaxcls sweep``: the plan, the table of cells, the best cell and the files."""

import math
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxcls import sweep
from jaxcls.artifacts import checkpoint
from jaxcls.cli import console, running
from jaxcls.cli.sweep_config import Config, decay_of_all
from jaxcls.data import Splits
from jaxcls.result import SweepResult
from jaxcls.table import best_first, best_row

MOST_ROWS = 100  # of the table, on the screen
ALL_DIVERGED = "every cell diverged: try lower learning rates"


def announce(config: Config, splits: Splits, plan: sweep.Plan, out: Path) -> None:
    """Print the data, the grid and the memory of the sweep that is about to start."""
    blocks = len(plan.blocks)
    of_all = decay_of_all(config)
    decay = f", decay {of_all:g} an epoch" if of_all not in (None, 1) else ""
    decay += f", {config.schedule}" if config.schedule != "constant" else ""
    decay += f", warm-up of {config.warmup:,}" if config.warmup else ""
    console.print_data(splits, ("train", "val", "test"))
    if config.extend:
        print(f"extends   {config.extend}, to {config.steps:,} steps")
    if config.refine:
        print(f"refines   {config.refine}, around its best cell")
    print(f"grid      {plan.grid} = {console.counted(len(plan.grid), 'cell')}")
    print(f"          {config.steps:,} steps of {config.batch_size} examples, {config.optimizer}{decay}")
    if plan.halving:
        print(f"halving   the best third stays after {', '.join(f'{rung:,}' for rung in plan.halving.rungs)} steps")
    of_data = f"{megabytes(plan.groups[0].memory.data)} data{', read while training' if plan.stream else ''}"
    print(f"memory    about {megabytes(plan.nbytes)}, of it {of_data}", end="")
    print(f"; {blocks} blocks, one after another" if blocks > 1 else "")
    print(f"folder    {out}/")


def report(result: SweepResult, splits: Splits, paths: list[Path], seconds: dict[str, float]) -> None:
    """Print the table, the best cell, where the time went and what was written."""
    table, best = result.table, result.best
    axes = list(result.grid.axes)
    shown = np.argsort(table, order=axes)
    if len(table) > MOST_ROWS:
        shown = best_first(table["rank"])[:MOST_ROWS]
    print_table(table, axes, shown, lambda k: f"diverged at step {table['diverged_at'][k]}")
    if len(table) > MOST_ROWS:
        print(f"... the best {MOST_ROWS} of {len(table):,} cells; all are in {paths[0].parent}/results.csv")

    console.print_scored(result, splits)
    if best is None:
        print(f"\n{ALL_DIVERGED}")
    else:
        row = table[best]
        cell = ", ".join(f"{axis} {row[axis]:g}" for axis in axes)
        print("\n" + textwrap.fill(cell, 80, initial_indent="best      ", subsequent_indent=console.INDENT))
        print(f"          {row[result.column]:.4f} on val{result.on_val}, {result.test_accuracy:.4f} on test")
        console.print_ties(result, splits)
        console.print_one_se(result, splits)
        console.print_edges(result)
        console.print_metrics(result.metrics)
    console.print_times(result.timings, seconds)
    trained = sum(cells * (last - first) for cells, first, last in result.stages)
    print(f"speed     {trained / result.timings.run_s:,.0f} cell-steps per second")
    console.print_wrote(paths)
    if best is not None:
        console.print_prediction(paths[0].parent, result)


def report_stopped(stopped: checkpoint.Stopped, plan: sweep.Plan, resume: str) -> None:
    """Print the progress of every cell, and the command that resumes the run."""
    snapshot, axes = stopped.snapshot, list(plan.grid.axes)
    table, losses, steps = snapshot.table, snapshot.losses, plan.schedule.stages[snapshot.stage]
    trained = np.full(len(table), steps.start)
    for number, block in enumerate(plan.blocks_of(snapshot.alive)[: snapshot.block + 1]):
        trained[block.rows] = steps.stop if number < snapshot.block else max(snapshot.step, steps.start)

    def how_far(k: int) -> str:
        if table["diverged_at"][k] >= 0:
            return f"diverged at step {table['diverged_at'][k]}"
        if table["stopped_at"][k] >= 0:
            return f"stopped at step {table['stopped_at'][k]}"
        if not (step := trained[k]):
            return "not begun"
        finite = np.isfinite(losses[k, :step])
        return (
            f"loss {losses[k, step - 1]:.4f} at step {step}" if finite.all() else f"diverged at step {finite.argmin()}"
        )

    order = np.argsort(table, order=axes)
    if len(table) > MOST_ROWS:
        order = order[np.argsort(losses[order, trained[order] - 1])][:MOST_ROWS]
    if trained.any():
        print_table(table, axes, order, how_far)
    running.print_stopped(stopped, plan, resume)


def print_table(table: np.ndarray, axes: list[str], shown: np.ndarray, else_say: Callable[[int], str]) -> None:
    """Print these rows: cell, accuracies and rank, or ``else_say`` of cells without rank."""
    best = best_row(table)
    print("\n" + " ".join(f"{axis:>{width(axis)}}" for axis in axes), f"{'train acc':>10} {'val acc':>9} {'rank':>6}")
    for k in shown.tolist():
        row = table[k]
        cell = " ".join(f"{row[axis]:{width(axis)}.6g}" for axis in axes)
        if row["rank"]:
            end = f"  to step {row['stopped_at']:,}" if row["stopped_at"] >= 0 else ""
            star = f"{end}  <- best" if k == best else end
            print(f"{cell} {score(row['train_accuracy']):>10} {row['val_accuracy']:9.4f} {row['rank']:6d}{star}")
        else:
            print(f"{cell}   {else_say(k)}")


def score(value: float) -> str:
    """A score of the table; empty for train's of a cell that halving dropped."""
    return f"{value:.4f}" if math.isfinite(value) else ""


def width(axis: str) -> int:
    """Characters of a column of the table."""
    return {"lr": 12, "reg": 12, "seed": 5}.get(axis, max(7, len(axis)))


def megabytes(count: int) -> str:
    """A number of bytes as text."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
