"""From a grid to compiled programs: plan, step of all cells, devices, progress."""

from jaxcls.engine import blocks, cells, plan, planning, program, training
from jaxcls.engine.blocks import Block, Stack
from jaxcls.engine.cells import Problem, Replicates
from jaxcls.engine.continuing import continued
from jaxcls.engine.devices import BY_CELL, CELLS, EVERYWHERE, alignment, mesh, put
from jaxcls.engine.feed import Feed
from jaxcls.engine.halving import Halving
from jaxcls.engine.plan import Group, Keep, Plan, minibatches
from jaxcls.engine.planning import plan_sweep
from jaxcls.engine.program import Program
from jaxcls.engine.progress import Callback, Figures, Progress, Save
from jaxcls.engine.schedule import Schedule
from jaxcls.engine.snapshot import ARRAYS, Parked, Snapshot

__all__ = [
    "ARRAYS",
    "BY_CELL",
    "CELLS",
    "EVERYWHERE",
    "Block",
    "Callback",
    "Feed",
    "Figures",
    "Group",
    "Halving",
    "Keep",
    "Parked",
    "Plan",
    "Problem",
    "Program",
    "Progress",
    "Replicates",
    "Save",
    "Schedule",
    "Snapshot",
    "Stack",
    "alignment",
    "blocks",
    "cells",
    "continued",
    "mesh",
    "minibatches",
    "plan",
    "plan_sweep",
    "planning",
    "program",
    "put",
    "training",
]
