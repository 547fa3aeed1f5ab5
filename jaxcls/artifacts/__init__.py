"""Files of a run: its folder, checkpoints, table, record and best cell, its plots and its page.

They need the extra ``sweep``. Each module is imported by its name: ``from jaxcls.artifacts import record``.
"""

from jaxcls.numerics import require

require("jaxcls.artifacts", "filelock", "matplotlib", "safetensors", extra="sweep")

__all__ = ["checkpoint", "folder", "plots", "record", "report"]
