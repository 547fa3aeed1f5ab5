"""Sphinx configuration. Build without network and warnings: ``sphinx-build -W docs docs/_build/html``."""

import ast
import inspect
import re
import sys
import textwrap
from typing import Any

from docutils.nodes import document
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import jaxcls

project = "jaxcls"
version = release = jaxcls.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = "jaxcls"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = html_show_copyright = False
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # the notebook stores its outputs, and the tests execute it
autosummary_ignore_module_all = False  # `__all__` decides which modules have a page
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
napoleon_attr_annotations = False  # the signature has the types
napoleon_custom_sections = ["Returns"]  # the text is a sentence: no type before its first colon
default_role = "py:obj"  # what `name` in a docstring refers to
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*"), ("py:obj", r"(functools|jax|optax|torch)\..*")]  # other projects


def signature_as_written(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Signature as in the source: evaluated, ``Float[ArrayLike, "N D"]`` is a union of eight types."""
    if signature is None or not obj.__module__.startswith(("jaxcls", "torchref")):
        return None
    is_class, is_record = inspect.isclass(obj), hasattr(obj, "__match_args__")  # a NamedTuple or a dataclass
    source = inspect.unwrap(obj.__init__ if is_class and not is_record else obj)
    if not (is_record or inspect.isfunction(source)):
        return None
    node = ast.parse(textwrap.dedent(inspect.getsource(source))).body[0]
    if isinstance(node, ast.ClassDef):
        return f"({', '.join(ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign))})", None
    arguments = re.sub(r"^self(, )?", "", ast.unparse(node.args))
    return f"({arguments})", None if is_class or node.returns is None else ast.unparse(node.returns)


def text_as_written(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Render blocks indented by four spaces as formulas, line by line; escape "C." so that it does not start a list."""
    text = re.sub(r"(?m)^(\S.*\n)\n(?= {4}\S)", r"\1\n.. code-block:: text\n\n", "\n".join(lines))
    lines[:] = re.sub(r"(?m)\b([A-Z])\.(?=\s|$)", r"\1\\.", text).split("\n")


def skip_added(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Skip members that NamedTuple and scikit-learn add to a class: repeated fields, set_fit_request and the like."""
    module = getattr(obj, "__module__", type(obj).__module__)
    return True if module.startswith(("_collections", "sklearn")) else None


def names_as_imported(app: Sphinx, doctree: document) -> None:
    """Link a class name to the class of that name in its module; Sphinx would match by suffix, or not at all."""
    for node in doctree.findall(pending_xref):
        if node.get("refspecific") is False:
            del node["refspecific"]
        target = getattr(sys.modules.get(node.get("py:module")), node["reftarget"], None)
        if inspect.isclass(target):
            node["reftarget"] = f"{target.__module__}.{target.__qualname__}"


def setup(app: Sphinx) -> None:
    """Connect the hooks above to Sphinx."""
    app.connect("autodoc-process-signature", signature_as_written)
    app.connect("autodoc-process-docstring", text_as_written, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_added)
    app.connect("doctree-read", names_as_imported)
