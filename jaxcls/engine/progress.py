"""The progress of a sweep on the host: its table and losses, its timings, and who trains on."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from jaxcls.data import Folds, Splits
from jaxcls.engine import snapshot
from jaxcls.engine.halving import survivors
from jaxcls.engine.plan import Plan
from jaxcls.engine.snapshot import ARRAYS, Parked, Snapshot
from jaxcls.metrics import Outcomes
from jaxcls.numerics import Params
from jaxcls.optimizers import steps_per_epoch
from jaxcls.result import History, SweepResult, Timings
from jaxcls.table import SCORES, Scores, check_select, merit, rank_rows

Figures = dict[str, int | float]
Gather = Callable[[Sequence[Parked], NDArray[np.integer]], list[NDArray]]  # leaves of cells with these rows
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
        self.plan, self.data, self.callback, self.save = plan, data, callback, save
        check_select(select, data.num_classes)
        self.select, self.stages = select, plan.schedule.stages
        self.fingerprint = functools.cache(functools.partial(snapshot.fingerprint, data, plan, select))
        self.begin = snapshot.initial(plan)
        if resume is not None:
            self.begin = snapshot.resumed(resume, self.begin._replace(fingerprint=self.fingerprint()), plan)
        self.table, self.best, self.stage = self.begin.table, self.begin.best, self.begin.stage
        self.losses, self.train_accuracy, self.val_accuracy, self.right, self.alive, self.score, self.waited = (
            getattr(self.begin, name) for name in ARRAYS
        )
        self.blocks = plan.blocks_of(self.alive)
        self.done = self.begin.parked[: sum(map(len, self.blocks[: self.begin.block])) if self.parks else 0]
        self.waiting = self.begin.parked[len(self.done) :]
        self.seconds, self.started = self.begin.timings._asdict(), time.perf_counter()

    @property
    def at_rung(self) -> bool:
        """True if another stage follows this one."""
        return self.stage + 1 < len(self.stages)

    @property
    def parks(self) -> bool:
        """True if the state of the cells is needed after this stage."""
        return self.at_rung or self.plan.keep_state

    @property
    def halves(self) -> bool:
        """True if cells are judged after this stage."""
        return self.plan.halving is not None and self.stages[self.stage].stop in self.plan.halving.rungs

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Mask of the cells whose training ends with this stage, but for those that halving drops."""
        return self.out_of_patience if self.at_rung else self.alive

    @property
    def out_of_patience(self) -> NDArray[np.bool_]:
        """Mask of the cells in training that had no better score for so long."""
        return self.alive & (self.waited >= (self.plan.patience or np.inf))

    @property
    def remaining(self) -> range:
        """The numbers of the blocks of this stage that are to be trained."""
        return range(self.begin.block if self.stage == self.begin.stage else 0, len(self.blocks))

    def chunks(self, block: int) -> list[range]:
        """The chunks of this stage that a block has still to train."""
        return self.plan.schedule.after(self.begin.step if self._is_resumed(block) else 0, self.stage)

    def take_leaves(self, block: int, gathers: Sequence[Gather]) -> list[list[NDArray]]:
        """The leaves of each stack's state so far: of the snapshot, or of the stage before; empty before the first."""
        stacks, state = self.blocks[block], self.begin.state if self._is_resumed(block) else []
        if self.waiting and not state:
            found = [gather(self.waiting, stack.rows) for gather, stack in zip(gathers, stacks, strict=True)]
        else:
            each = len(state) // len(stacks)  # all are of one model and optimizer
            found = [state[each * k : each * (k + 1)] for k in range(len(stacks))]
        if block == len(self.blocks) - 1:
            self.waiting = []
        return found

    def _is_resumed(self, block: int) -> bool:
        return (self.stage, block) == (self.begin.stage, self.begin.block)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds of a ``with`` block in this field of `Timings`."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def report(self, block: int, step: int, leaves: Callable[[], list[NDArray]]) -> None:
        """Call ``save`` and ``callback`` with the current progress; ``leaves`` are those of the state."""
        if self.save:
            self.save(lambda: self.snapshot(block, step, leaves()))
        if self.callback:
            done, steps = self.plan.steps_done(self.alive, self.stage, block, step)
            rows = self.blocks[block].rows if self.blocks else np.empty(0, int)
            self.callback(_figures(steps, done, self.losses[rows, :step]))

    def snapshot(self, block: int, step: int, state: list[NDArray]) -> Snapshot:
        """The current progress, with the state of a block's stacks."""
        return Snapshot(
            table=self.table,
            **{name: getattr(self, name) for name in ARRAYS},
            best=self.best,
            stage=self.stage,
            block=block,
            step=step,
            state=state,
            parked=self.done + self.waiting,
            timings=self.timings(),
            halving=str(self.plan.halving),
            fingerprint=self.fingerprint(),
        )

    def enter_losses(self, rows: NDArray[np.integer], chunk: range, losses: NDArray[np.floating]) -> None:
        """Enter the minibatch losses of a chunk, ``[S, G, T]``."""
        alive = self.alive[rows]
        self.losses[rows[alive], chunk.start : chunk.stop] = losses[alive]

    def enter_accuracies(self, rows: NDArray[np.integer], step: int, on_batch: NDArray, on_val: Scores) -> None:
        """Enter the accuracies after a recorded step, ``[S, G]``; cells without patience for more leave."""
        alive, column = self.alive[rows], np.searchsorted(self.plan.schedule.recorded, step)
        for recorded, values in ((self.train_accuracy, on_batch), (self.val_accuracy, on_val.val_accuracy)):
            recorded[rows[alive], column] = values[alive]
        score = merit(on_val._asdict(), self.select)
        better = np.zeros(len(self.alive), bool)
        better[rows[alive]] = score[alive] > self.score[rows[alive]]
        self.score[rows[alive]] = np.fmax(self.score[rows[alive]], score[alive])
        self.waited[rows[alive]] = np.where(better, 0, self.waited + 1)[rows[alive]]

    def enter_rung(self, rows: NDArray[np.integer], scores: Scores) -> None:
        """Enter the scores on val, ``[S, G]``, that a rung judges cells by."""
        alive = self.alive[rows]
        for name in SCORES:
            if name.startswith("val"):
                self.table[name][rows[alive]] = getattr(scores, name)[alive]

    def enter_scores(self, rows: NDArray[np.integer], scores: Scores, right: NDArray[np.uint8]) -> int | None:
        """Enter the scores, ``[S, G]``, of the finished cells of a stack; return the best cell's row if it is one."""
        mask = self.finished[rows]
        entered = rows[mask]
        self.right[entered] = right[mask]
        for name, values in scores._asdict().items():
            self.table[name][entered] = values[mask]
        self._enter_diverged(entered, np.isfinite(scores.train_loss + scores.val_loss)[mask])
        rank_rows(self.table, self.select)
        best = entered[self.table["rank"][entered] == 1].tolist()
        return best[0] if best else None

    def _enter_diverged(self, rows: NDArray[np.integer], scored: NDArray[np.bool_]) -> None:
        """Enter where cells diverged whose training ends here: the first loss that is not finite, or their scores."""
        end = self.stages[self.stage].stop
        finite = np.isfinite(self.losses[rows, :end])
        diverged_at = np.where(finite.all(axis=-1), np.where(scored, -1, end), np.argmin(finite, axis=-1))
        self.table["diverged_at"][rows] = diverged_at
        for name in SCORES:
            self.table[name][rows[diverged_at >= 0]] = np.nan

    def park(self, rows: NDArray[np.integer], leaves: list[NDArray]) -> None:
        """Take the state of a stack whose stage is done."""
        self.done = [*self.done, Parked(rows, leaves)]

    def end_stage(self) -> None:
        """Decide who stays for the next stage, and make its blocks."""
        if not self.at_rung:
            return
        end, plan = self.stages[self.stage].stop, self.plan
        stopped = self.out_of_patience
        self.alive = self.alive & ~stopped
        rows = np.flatnonzero(self.alive)
        judged = self.table["val_loss"][rows] if self.halves else np.zeros(len(rows))
        self._enter_diverged(rows, np.isfinite(judged))
        self.alive = self.alive & (self.table["diverged_at"] < 0)
        if plan.halving is not None and self.halves:
            stay = survivors(self.table, self.alive, plan.grid.num_replicates, plan.halving, self.select)
            stopped |= self.alive & ~stay
            self.alive = self.alive & stay
        self.table["stopped_at"][stopped & (self.table["diverged_at"] < 0)] = end
        for name in SCORES:
            self.table[name][self.alive] = np.nan
        self.waiting, self.done, self.stage = self.done, [], self.stage + 1
        self.blocks = plan.blocks_of(self.alive)

    def timings(self) -> Timings:
        """Seconds so far, those before the sweep was resumed included."""
        total_s = self.begin.timings.total_s + time.perf_counter() - self.started
        return Timings(**self.seconds | {"total_s": total_s})

    def result(self, params: Params | None, test: Outcomes | None) -> SweepResult:
        """The result of the sweep, once all blocks are done."""
        rank_rows(self.table, self.select)
        schedule, diverged_at = self.plan.schedule, self.table["diverged_at"][:, None]
        for accuracy in (self.train_accuracy, self.val_accuracy):
            # The params are spoilt by the step before the one whose loss is not finite.
            accuracy[(diverged_at >= 0) & (schedule.recorded >= diverged_at - 1)] = np.nan
        epoch, history = schedule.epoch or steps_per_epoch(len(self.data.train.y), self.plan.batch_size), None
        if schedule.every:
            history = History(
                step=schedule.recorded,
                epoch=schedule.recorded / epoch,
                train_accuracy=self.train_accuracy,
                val_accuracy=self.val_accuracy,
            )
        self.alive = self.alive & (self.table["diverged_at"] < 0)
        self.waiting = []
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
            snapshot=self.snapshot(len(self.blocks), 0, []) if self.plan.keep_state else None,
        )


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
