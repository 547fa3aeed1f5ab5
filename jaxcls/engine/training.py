"""Stacks of cells in training, on the same examples: from their start to the scores of those that leave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxcls.engine import evaluation
from jaxcls.engine.blocks import Stack
from jaxcls.engine.cells import Kept
from jaxcls.engine.evaluation import Scored
from jaxcls.engine.feed import Fed
from jaxcls.engine.program import Inputs, Program
from jaxcls.engine.progress import Progress
from jaxcls.table import Scores
from jaxcls.train import State


@dataclass
class Training:
    """A stack of cells, with its state so far.

    Attributes:
      compiled: its program.
      rows: of the grid, ``[S, G]``.
      inputs: of its cells.
      state, kept: after the last chunk.
      on_val: its scores over val, if it was scored after the last chunk.
    """

    compiled: Program
    rows: NDArray[np.integer]
    inputs: Inputs
    state: State
    kept: Kept | None
    on_val: Scores | None = None

    @classmethod
    def begin(cls, compiled: Program, stack: Stack, leaves: Sequence[NDArray]) -> "Training":
        """From these leaves of its state, or from the start if there are none."""
        inputs = compiled.inputs(stack.rows)
        return cls(compiled, stack.rows, inputs, *(compiled.restore(leaves) if leaves else compiled.init(inputs)))

    @property
    def final(self) -> State:
        """The state whose params are the result."""
        return self.state._replace(params=self.kept.params, average=None) if self.kept else self.state

    def leaves(self) -> list[NDArray]:
        """The leaves of its state, and of what is kept of it."""
        return self.compiled.leaves((self.state, self.kept))

    def scored(self, state: State) -> Scored:
        """The stack, to be scored with the params of a state."""
        return Scored.of(self.compiled, state, self.inputs)


def train(stacks: Sequence[Training], progress: Progress, chunk: range, fed: Fed) -> None:
    """Train for a chunk."""
    for each in stacks:
        each.on_val = None
        each.state, losses = each.compiled.train(each.state, each.inputs, fed)
        progress.enter_losses(each.rows, chunk, losses)


def record(stacks: Sequence[Training], progress: Progress, step: int, batch: NDArray[np.integer]) -> None:
    """Record accuracies after a step, on its minibatch and on val, and keep the best params."""
    accuracies = evaluation.on_batch([each.scored(each.state) for each in stacks], batch)
    for each, on_batch, on_val in zip(stacks, accuracies, _validated(stacks), strict=True):
        progress.enter_accuracies(each.rows, step, on_batch, on_val)
        _keep(each, progress, on_val)


def end(stacks: Sequence[Training], progress: Progress) -> None:
    """Judge the cells at a rung, score those that leave, and park the others."""
    if progress.halves:
        for each, on_val in zip(stacks, _validated(stacks), strict=True):
            progress.enter_rung(each.rows, on_val)
    finished = [each for each in stacks if progress.finished[each.rows].any()]
    if kept := [each for each in finished if each.kept and not progress.at_rung]:
        for each, on_val in zip(kept, _validated(kept), strict=True):
            _keep(each, progress, on_val)
    if finished:
        found = evaluation.on_all([each.scored(each.final) for each in finished])
        for each, (scores, right) in zip(finished, found, strict=True):
            best = progress.enter_scores(each.rows, scores, right)
            if best is not None:
                progress.best = each.compiled.take(each.final, each.rows, best)
    if progress.parks:
        for each in stacks:
            progress.park(each.rows, each.leaves())


def _keep(stack: Training, progress: Progress, on_val: Scores) -> None:
    alive = progress.alive[stack.rows]
    stack.kept = stack.compiled.keep(stack.kept, stack.state, on_val, progress.select, alive)


def _validated(stacks: Sequence[Training]) -> list[Scores]:
    """Scores over val, computed once after a chunk."""
    if stacks[0].on_val is None:
        for each, found in zip(stacks, evaluation.on_val([each.scored(each.state) for each in stacks]), strict=True):
            each.on_val = found
    return [each.on_val for each in stacks if each.on_val is not None]
