"""Scores of stacks of cells, each batch of examples read once for all of them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray

from jaxcls.engine import cells
from jaxcls.engine.devices import fetch
from jaxcls.engine.program import Inputs, Program
from jaxcls.numerics import Params
from jaxcls.table import Scores, scores
from jaxcls.train import EVALUATION_BATCH, Score, State, filled_up

OfPart = tuple[Score, Bool[NDArray, "S G M"]]  # scores over a part's examples, and which each cell predicts rightly


class Scored(NamedTuple):
    """A stack to be scored: its program, the params of as many cells as are scored together, and its inputs."""

    compiled: Program
    params: Params
    inputs: Inputs

    @classmethod
    def of(cls, compiled: Program, state: State, inputs: Inputs) -> "Scored":
        """With the params of a state."""
        return cls(compiled, jax.tree.map(compiled.filled_up, state.scored), inputs)

    @property
    def folds(self) -> list[int]:
        """The fold of each replicate, 0 where there are none."""
        return np.asarray(fetch(self.compiled.on, self.inputs.replicates.fold)).tolist()

    @property
    def val_part(self) -> NDArray[np.integer]:
        """The part that each replicate is validated on, ``[S]``."""
        return np.array([self.compiled.feed.data.val_part(fold) for fold in self.folds])


def on_batch(stacks: Sequence[Scored], batch: NDArray[np.integer]) -> list[NDArray]:
    """The accuracies of each stack, ``[S, G]``, on a minibatch of each replicate, ``[S, B]``."""
    return [scores(found, found).train_accuracy for found, _ in _over(stacks, [batch], 1)]


def on_val(stacks: Sequence[Scored]) -> list[Scores]:
    """Scores of each stack over val, ``[S, G]``; those over train are not to be used."""
    if stacks[0].compiled.feed.data.one_val:
        return [scores(found, found) for found, _ in _on_part(stacks, int(stacks[0].val_part[0]))]
    return [found for found, _ in on_all(stacks)]


def on_all(stacks: Sequence[Scored]) -> list[tuple[Scores, UInt8[NDArray, "S G bytes"]]]:
    """Scores of each stack over train and val, ``[S, G]``; and a bit for each example of val that is rightly predicted.

    Each replicate is validated on a part, and has trained on all others.
    """
    problem = stacks[0].compiled.problem
    of_parts = [_on_part(stacks, part) for part in range(len(problem.parts))]
    results = []
    for stack, of_stack in zip(stacks, zip(*of_parts, strict=True), strict=True):
        found, bits = zip(*of_stack, strict=True)
        right = np.zeros((*bits[0].shape[:2], stack.compiled.plan.right_bytes), np.uint8)
        for replicate, part in enumerate(stack.val_part.tolist()):
            packed = np.packbits(bits[part][replicate], axis=-1)
            right[replicate, :, : packed.shape[-1]] = packed
        results.append((scores(*cells.over_parts(stack.compiled.problem, found, stack.val_part)), right))
    return results


def _on_part(stacks: Sequence[Scored], part: int) -> list[OfPart]:
    """`_over` the examples of one part; penalty included where it is trained on."""
    compiled, folds = stacks[0].compiled, stacks[0].folds
    data, scored = compiled.feed.data, compiled.plan.scored(part)
    scored = scored[data.examples.order(data.first_row(part, folds[0]) + scored)]
    rows = np.stack([data.first_row(part, fold) + scored for fold in folds])
    batches = [rows[:, first : first + EVALUATION_BATCH] for first in range(0, len(scored), EVALUATION_BATCH)]
    return _over(stacks, batches, len(scored), part)


def _over(
    stacks: Sequence[Scored], batches: Sequence[NDArray[np.integer]], size: int, part: int | None = None
) -> list[OfPart]:
    """Over batches of rows, ``[S, M]`` each, of as many examples in all."""
    first = stacks[0].compiled
    full = [filled_up(rows, first.scored_together(rows.shape[1]), size) for rows in batches]
    sums, regs = [], []
    for stack in stacks:
        reg = np.where(stack.val_part[:, None] != part, fetch(stack.compiled.on, stack.inputs.hyper.reg), 0)
        regs.append(stack.compiled.filled_up(reg))
        sums.append(stack.compiled.no_score(len(reg)))
    bits: list[list[NDArray]] = [[] for _ in stacks]
    for fed, (_, share) in zip(first.feed.ahead(rows for rows, _ in full), full, strict=True):
        for k, (compiled, params, inputs) in enumerate(stacks):
            sums[k], right = compiled.score(sums[k], params, regs[k], inputs, fed, share)
            bits[k].append(right)
    results = []
    for (compiled, _, inputs), found, rights in zip(stacks, sums, bits, strict=True):
        own = Score(*(leaf[:, : len(inputs.size)] for leaf in fetch(compiled.on, found)))
        results.append((own, np.concatenate(rights, axis=-1)))
    return results
