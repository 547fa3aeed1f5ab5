"""Files of a run: its folder, checkpoints, table, record and best cell, its plots and its page.

Each module is imported by its name, since some need the extra ``sweep``: ``from jaxcls.artifacts import record``.
"""

__all__ = ["checkpoint", "plots", "record", "report"]
