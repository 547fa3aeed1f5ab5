"""The progress of a sweep on the host: its table and losses, its timings, and snapshots to resume from."""

import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcls.data import Folds, Splits
from jaxcls.engine.plan import Plan
from jaxcls.metrics import Outcomes
from jaxcls.numerics import Params
from jaxcls.result import History, Scores, SweepResult, Timings, check_select, empty_table, rank_rows

Figures = dict[str, int | float]


class Snapshot(NamedTuple):
    """A sweep between two chunks: its findings, and all that it needs to resume as if it had never stopped.

    The sweep owns the arrays and keeps filling them: copy them before the function that took the snapshot returns.

    Attributes:
      table, losses: as in `jaxcls.result.SweepResult`; NaN and rank 0 for cells not yet evaluated.
      train_accuracy, val_accuracy: as in `jaxcls.result.History`, NaN if not recorded yet; ``[cells, 0]`` for none.
      right: as in `jaxcls.result.SweepResult`; 0 for cells not yet evaluated.
      best: the leaves of the best params so far; empty before the first block is done.
      block: the number of blocks that are done.
      step: the number of steps that the next one has trained for.
      state: the leaves of its cells' state; empty at step 0.
      timings: seconds so far.
      fingerprint: SHA-256 of the data, the batch size, the sampling and what is kept; empty before the first snapshot.
    """

    table: NDArray
    losses: NDArray[np.floating]
    train_accuracy: NDArray[np.floating]
    val_accuracy: NDArray[np.floating]
    right: NDArray[np.uint8]
    best: list[NDArray]
    block: int
    step: int
    state: list[NDArray]
    timings: Timings
    fingerprint: str


Callback = Callable[[Figures], None]
Save = Callable[[Callable[[], Snapshot]], None]  # its argument takes the snapshot


class Progress:
    """Table, losses and timings of a running sweep, with its ``callback`` and ``save``.

    Args:
      plan: the sweep's.
      data: what it trains on.
      callback, save, resume, select: as `jaxcls.sweep.run` takes them.

    Raises:
      ValueError: the snapshot to resume from is another sweep's.
    """

    def __init__(
        self,
        plan: Plan,
        data: Splits | Folds,
        callback: Callback | None = None,
        save: Save | None = None,
        resume: Snapshot | None = None,
        select: str = "accuracy",
    ) -> None:
        self.plan, self.blocks, self.data, self.callback, self.save = plan, plan.blocks, data, callback, save
        check_select(select, data.num_classes)
        self.select = select
        self.fingerprint = functools.cache(functools.partial(_fingerprint, data, plan))
        self.begin = initial_snapshot(plan)
        if resume is not None:
            self.begin = _resumed(resume, self.begin._replace(fingerprint=self.fingerprint()), plan)
        self.table, self.losses, self.train_accuracy, self.val_accuracy, self.right, self.best, *_ = self.begin
        self.seconds, self.started = self.begin.timings._asdict(), time.perf_counter()

    def remaining(self, block: int) -> list[range]:
        """The chunks that a block has still to train."""
        return self.plan.schedule.after(self.begin.step if block == self.begin.block else 0)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds of a ``with`` block in this field of `Timings`."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def report(self, block: int, step: int, leaves: Callable[[], list[NDArray]]) -> None:
        """Call ``save`` and ``callback`` with the current progress; ``leaves`` are those of the state."""

        def take() -> Snapshot:
            return Snapshot(
                table=self.table,
                losses=self.losses,
                train_accuracy=self.train_accuracy,
                val_accuracy=self.val_accuracy,
                right=self.right,
                best=self.best,
                block=block,
                step=step,
                state=leaves(),
                timings=self.timings(),
                fingerprint=self.fingerprint(),
            )

        if self.save:
            self.save(take)
        if self.callback:
            steps = self.plan.schedule.steps
            rows = np.unique(self.blocks[block].rows)  # without those that fill up a block
            self.callback(_figures(steps * len(self.blocks), steps * block + step, self.losses[rows, :step]))

    def enter_losses(self, rows: NDArray[np.integer], chunk: range, losses: NDArray[np.floating]) -> None:
        """Enter the minibatch losses of a chunk, ``[S, G, T]``."""
        self.losses[rows, chunk.start : chunk.stop] = losses

    def enter_accuracies(self, rows: NDArray[np.integer], step: int, on_batch: NDArray, on_val: NDArray) -> None:
        """Enter the accuracies after a recorded step, ``[S, G]``."""
        assert self.plan.schedule.epoch
        column = step // self.plan.schedule.epoch
        self.train_accuracy[rows, column], self.val_accuracy[rows, column] = on_batch, on_val

    def enter_scores(self, rows: NDArray[np.integer], scores: Scores, right: NDArray[np.uint8]) -> int | None:
        """Enter the scores of a block, ``[S, G]``, and rank all cells; return the best cell's row if in this block."""
        self.right[rows] = right
        for name, values in scores._asdict().items():
            self.table[name][rows] = values
        finite, scored = np.isfinite(self.losses[rows]), np.isfinite(scores.train_loss + scores.val_loss)
        steps = self.plan.schedule.steps
        diverged_at = np.where(finite.all(axis=-1), np.where(scored, -1, steps), np.argmin(finite, axis=-1))
        self.table["diverged_at"][rows] = diverged_at
        for name in Scores._fields:
            self.table[name][rows[diverged_at >= 0]] = np.nan
        rank_rows(self.table, self.select)
        best = rows[self.table["rank"][rows] == 1].tolist()
        return best[0] if best else None

    def timings(self) -> Timings:
        """Seconds so far, those before the sweep was resumed included."""
        total_s = self.begin.timings.total_s + time.perf_counter() - self.started
        return Timings(**self.seconds | {"total_s": total_s})

    def result(self, params: Params | None, test: Outcomes | None) -> SweepResult:
        """The result of the sweep, once all blocks are done."""
        schedule, diverged_at = self.plan.schedule, self.table["diverged_at"][:, None]
        for accuracy in (self.train_accuracy, self.val_accuracy):
            # The params are spoilt by the step before the one whose loss is not finite.
            accuracy[(diverged_at >= 0) & (schedule.recorded >= diverged_at - 1)] = np.nan
        history = History(schedule.recorded, self.train_accuracy, self.val_accuracy) if schedule.epoch else None
        return SweepResult(
            grid=self.plan.grid,
            table=self.table,
            losses=self.losses,
            history=history,
            params=params,
            test=test,
            right=self.right,
            timings=self.timings(),
            classifier=self.plan.groups[0].problem.classifier,
            mean=self.data.mean,
            scale=self.data.scale,
            class_names=self.data.class_names,
            num_scored=self.plan.num_scored,
            select=self.select,
            unit_length=isinstance(self.data, Splits) and self.data.unit_length,
        )


def initial_snapshot(plan: Plan) -> Snapshot:
    """The snapshot before the first step."""
    schedule, num_cells = plan.schedule, len(plan.grid)
    train_accuracy, val_accuracy = np.full((2, num_cells, len(schedule.recorded)), np.nan)
    return Snapshot(
        table=empty_table(plan.grid),
        losses=np.full((num_cells, schedule.steps), np.nan, plan.groups[0].problem.dtype),
        train_accuracy=train_accuracy,
        val_accuracy=val_accuracy,
        right=np.zeros((num_cells, plan.right_bytes), np.uint8),
        best=[],
        block=0,
        step=0,
        state=[],
        timings=Timings(0.0, 0.0, 0.0, 0.0),
        fingerprint="",
    )


def _fingerprint(data: Splits | Folds, plan: Plan) -> str:
    return hashlib.sha256(f"{data.fingerprint()} {plan.batch_size} {plan.sampling} {plan.keep}".encode()).hexdigest()


def _resumed(resume: Snapshot, begin: Snapshot, plan: Plan) -> Snapshot:
    """A copy of a snapshot for the sweep to fill, once it is known to be of the sweep that begins so."""
    names = ("table", "losses", "train_accuracy", "val_accuracy", "right")
    arrays: dict[str, Any] = {name: np.array(getattr(resume, name)) for name in names}
    copy = resume._replace(**arrays)
    steps = {0, *(chunk.stop for chunk in plan.schedule.chunks)}
    pairs = [(getattr(copy, name), getattr(begin, name)) for name in names]
    same = all((one.shape, one.dtype) == (other.shape, other.dtype) for one, other in pairs)
    same = same and all((copy.table[axis] == begin.table[axis]).all() for axis in plan.grid.axes)
    same = same and resume.fingerprint == begin.fingerprint
    if not same or resume.block not in range(len(plan.blocks)) or resume.step not in steps:
        raise ValueError(
            "resume must be a snapshot of this very sweep, got one of another grid, length, history, batch size or data"
        )
    return copy


def _figures(steps: int, step: int, losses: NDArray[np.floating]) -> Figures:
    """The row of figures for a callback; ``losses`` are those so far of the cells in training, ``[cells, steps]``."""
    last = losses[:, -1:]
    alive = last[np.isfinite(last)]
    return {
        "step": step,
        "steps": steps,
        "cells": len(losses),
        "loss": float(np.median(alive)) if alive.size else math.nan,
        "diverged": int(np.sum(~np.isfinite(losses).all(axis=1))),
    }
