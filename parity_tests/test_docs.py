"""API pages: complete, as Sphinx would not notice what they leave out."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import jaxcls

ROOT = Path(__file__).parents[1]
ROOTS = re.findall(r"^   (\w[\w.]*)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)


def pages(root: str) -> list[str]:
    """A root and, as autosummary does, the modules that the ``__all__`` of a package names."""
    package = importlib.import_module(root)
    modules = {module.name for module in pkgutil.iter_modules(getattr(package, "__path__", []))}
    return [root, *(f"{root}.{name}" for name in getattr(package, "__all__", []) if name in modules)]


PAGES = [page for root in ROOTS for page in pages(root)]


def test_every_module_of_the_library_table_and_of_the_package_has_a_page() -> None:
    rows = re.findall(
        r"^\| (`(?:jaxcls|torchref).*?) \|", (ROOT / "docs" / "library.md").read_text("utf-8"), re.MULTILINE
    )
    named = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    assert len(named) > 10
    assert named | {f"jaxcls.{name}" for name in jaxcls.__all__} <= set(PAGES)


def test_every_public_function_and_class_of_a_page_is_documented_as_its_own() -> None:
    found = {f"{page}.{name}": getattr(importlib.import_module(page), name) for page in PAGES for name in defined(page)}
    assert len(found) > 50
    # By these, autodoc tells a module's own names from imported ones: a decorator may lose them.
    assert [name for name, value in found.items() if f"{value.__module__}.{value.__name__}" != name] == []
    assert [name for name, value in found.items() if not value.__doc__] == []


def defined(module: str) -> list[str]:
    """The public functions and classes that a module's source defines."""
    tree = ast.parse(Path(importlib.import_module(module).__file__).read_text("utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if not name.startswith("_")]
