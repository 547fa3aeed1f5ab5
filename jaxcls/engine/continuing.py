"""A finished sweep as the beginning of another: with more steps, or with more cells."""

import numpy as np

from jaxcls.engine.plan import Plan
from jaxcls.engine.snapshot import ARRAYS, Snapshot, initial
from jaxcls.table import SCORES

OVER_STEPS = ("losses", "train_accuracy", "val_accuracy")  # their last axis


def continued(snapshot: Snapshot, plan: Plan) -> Snapshot:
    """The snapshot that a longer or wider sweep resumes from, to train further or to train other cells too.

    With more steps, cells that were trained to the end are trained further, to what they would be had they been trained
    for as long at once; those that were dropped stay as they are. With more cells, those of the finished sweep come
    first, and stay as they are.

    Args:
      snapshot: of a finished sweep that kept its state.
      plan: of the other sweep, with the same data and options; with more steps, and its ``trained`` that of the
        finished one; or with more cells.

    Raises:
      ValueError: there are both, or neither, or fewer steps; the first cells are others; or there is no state.

    Example:
      >>> from jaxcls import data, grid, sweep
      >>> splits, cells = data.standard(data.load_digits()), grid.Grid(lr=[0.1, 1.0], reg=[0.0])
      >>> first = sweep.run(splits, cells, steps=100, keep_state=True)
      >>> longer = sweep.plan(splits, cells, steps=300, keep_state=True, trained=100)
      >>> more = sweep.execute(longer, splits, resume=continued(first.snapshot, longer))
      >>> bool((more.losses == sweep.run(splits, cells, steps=300).losses).all())
      True
    """
    begin, num_cells, steps = initial(plan), *snapshot.losses.shape
    if steps > plan.schedule.steps:
        raise ValueError(f"steps must be at least the {steps} of the finished sweep, got {plan.schedule.steps}")
    longer, wider = steps < plan.schedule.steps, num_cells < len(begin.table)
    axes = list(plan.grid.axes)
    if any(axis not in (snapshot.table.dtype.names or ()) for axis in axes) or (
        not (begin.table[axes][:num_cells] == snapshot.table[axes]).all()
    ):
        raise ValueError("the first cells must be those of the finished sweep")
    if longer == wider:
        raise ValueError("a finished sweep must be continued with more steps or with more cells, and not with both")
    for name in (*ARRAYS, "table"):
        old, new = getattr(snapshot, name), getattr(begin, name)
        new[(slice(num_cells), slice(old.shape[1])) if name in OVER_STEPS else slice(num_cells)] = old
    kept = begin._replace(best=snapshot.best, timings=snapshot.timings, fingerprint=snapshot.fingerprint)
    if wider:
        kept.alive[:num_cells] = False
        return kept
    if not snapshot.parked:
        raise ValueError(
            "the finished sweep must have kept the state of its cells, or all of them must not have diverged"
        )
    for name in SCORES:
        kept.table[name][kept.alive] = np.nan
    return kept._replace(stage=plan.schedule.rungs.index(steps) + 1, parked=snapshot.parked)
