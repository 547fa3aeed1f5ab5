"""Snapshots of a sweep between two chunks, to resume from."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcls.data import Folds, Splits
from jaxcls.engine.plan import Plan
from jaxcls.result import Timings
from jaxcls.table import empty_table


class Parked(NamedTuple):
    """Cells between two stages, on the host: their rows of the grid, ``[S, G]``, and the leaves of their state."""

    rows: NDArray[np.integer]
    leaves: list[NDArray]


class Snapshot(NamedTuple):
    """A sweep between two chunks: its findings, and all that it needs to resume as if it had never stopped.

    The sweep owns the arrays and keeps filling them: copy them before the function that took the snapshot returns.

    Attributes:
      table, losses: as in `jaxcls.result.SweepResult`; NaN and rank 0 for cells not yet evaluated.
      train_accuracy, val_accuracy: as in `jaxcls.result.History`, NaN if not recorded yet; ``[cells, 0]`` for none.
      right: as in `jaxcls.result.SweepResult`; 0 for cells not yet evaluated.
      alive: mask of the cells that this stage trains; those that diverge leave it at its end.
      score, waited: the best score on val of each cell that its patience was measured by, and the evaluations since.
      best: the leaves of the best params so far; empty before the first block is done.
      stage: the number of stages that are done.
      block: the number of blocks that are done in this one.
      step: the number of steps that the next one has trained for; 0 before it is begun.
      state: the leaves of the state of its stacks; empty at step 0.
      parked: the cells of those that are done, and then of the stage before.
      timings: seconds so far.
      halving: the plan's, as text.
      fingerprint: SHA-256 of the data, the metric and the plan but for its halving; empty before the first snapshot.
    """

    table: NDArray
    losses: NDArray[np.floating]
    train_accuracy: NDArray[np.floating]
    val_accuracy: NDArray[np.floating]
    right: NDArray[np.uint8]
    alive: NDArray[np.bool_]
    score: NDArray[np.floating]
    waited: NDArray[np.integer]
    best: list[NDArray]
    stage: int
    block: int
    step: int
    state: list[NDArray]
    parked: list[Parked]
    timings: Timings
    halving: str
    fingerprint: str


ARRAYS = ("losses", "train_accuracy", "val_accuracy", "right", "alive", "score", "waited")  # of a snapshot


def initial(plan: Plan) -> Snapshot:
    """The snapshot before the first step."""
    schedule, num_cells = plan.schedule, len(plan.grid)
    train_accuracy, val_accuracy = np.full((2, num_cells, len(schedule.recorded)), np.nan)
    return Snapshot(
        table=empty_table(plan.grid),
        losses=np.full((num_cells, schedule.steps), np.nan, plan.groups[0].problem.dtype),
        train_accuracy=train_accuracy,
        val_accuracy=val_accuracy,
        right=np.zeros((num_cells, plan.right_bytes), np.uint8),
        alive=np.ones(num_cells, bool),
        score=np.full(num_cells, -np.inf),
        waited=np.zeros(num_cells, int),
        best=[],
        stage=0,
        block=0,
        step=0,
        state=[],
        parked=[],
        timings=Timings(0.0, 0.0, 0.0, 0.0),
        halving=str(plan.halving),
        fingerprint="",
    )


def fingerprint(data: Splits | Folds, plan: Plan, select: str) -> str:
    """SHA-256 of the data, the metric and a plan's options; its cells, steps and halving are compared by themselves."""
    of_plan = (
        select,
        plan.batch_size,
        plan.sampling,
        plan.epoch_size,
        plan.keep,
        plan.keep_state,
        plan.patience,
        plan.ema,
    )
    return hashlib.sha256(" ".join(map(str, (data.fingerprint(), *of_plan))).encode()).hexdigest()


def resumed(resume: Snapshot, begin: Snapshot, plan: Plan) -> Snapshot:
    """A copy of a snapshot for the sweep to fill, once it is known to be of the sweep that begins so.

    Raises:
      ValueError: it is another sweep's.
    """
    names = ("table", *ARRAYS)
    arrays: dict[str, Any] = {name: np.array(getattr(resume, name)) for name in names}
    copy = resume._replace(**arrays)
    pairs = [(getattr(copy, name), getattr(begin, name)) for name in names]
    same = all((one.shape, one.dtype) == (other.shape, other.dtype) for one, other in pairs)
    same = same and all((copy.table[axis] == begin.table[axis]).all() for axis in plan.grid.axes)
    same = same and (resume.fingerprint, resume.halving) == (begin.fingerprint, begin.halving)
    same = same and resume.stage in range(len(plan.schedule.stages))
    if same:
        chunks = plan.schedule.after(0, resume.stage)
        blocks = max(len(plan.blocks_of(copy.alive)), 1)
        same = resume.block in range(blocks) and resume.step in {0, *(chunk.stop for chunk in chunks)}
    if not same:
        raise ValueError(
            "resume must be a snapshot of this very sweep, got one of another grid, length, history, batch size, "
            "metric or data"
        )
    return copy
