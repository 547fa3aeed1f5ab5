"""How a grid becomes one compiled program: blocks of cells, the step of all of them, their devices."""

from jaxcls.engine import cells, program
from jaxcls.engine.cells import Examples, Problem, Replicates
from jaxcls.engine.devices import CELLS, EVERYWHERE, alignment, fetch, mesh, on_each, put
from jaxcls.engine.plan import blocks, groups
from jaxcls.engine.program import Cells, without_keys

__all__ = [
    "CELLS",
    "EVERYWHERE",
    "Cells",
    "Examples",
    "Problem",
    "Replicates",
    "alignment",
    "blocks",
    "cells",
    "fetch",
    "groups",
    "mesh",
    "on_each",
    "program",
    "put",
    "without_keys",
]
