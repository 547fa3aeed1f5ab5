"""How a grid becomes one compiled program: blocks of cells, the step of all of them, their devices."""

from jaxcls.engine import program, wide
from jaxcls.engine.devices import CELLS, EVERYWHERE, alignment, fetch, mesh, on_each, put
from jaxcls.engine.plan import blocks, groups
from jaxcls.engine.program import Cells, without_keys
from jaxcls.engine.wide import Examples, Problem, Replicates

__all__ = [
    "CELLS",
    "EVERYWHERE",
    "Cells",
    "Examples",
    "Problem",
    "Replicates",
    "alignment",
    "blocks",
    "fetch",
    "groups",
    "mesh",
    "on_each",
    "program",
    "put",
    "wide",
    "without_keys",
]
