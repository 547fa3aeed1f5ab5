"""A run on disk: its folder, its checkpoints, its table, record and best cell, the pictures, the page.

Each module is imported by its name, since some need the extra ``sweep``: ``from jaxcls.artifacts import results``.
"""
