"""These pages, built without a network and without a warning: ``sphinx-build -W docs docs/_build/html``."""

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
nb_execution_mode = "off"  # its outputs are stored, and the tests run it
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
napoleon_attr_annotations = False  # the signature has the types
napoleon_custom_sections = ["Returns"]  # a sentence, and no type before its first colon
default_role = "py:obj"  # `name` in a docstring
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*"), ("py:obj", r"(functools|jax|optax|torch)\..*")]  # of others


def signature_as_written(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """The source's own annotations and defaults: evaluated, ``Float[ArrayLike, "N D"]`` is a union of eight types."""
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
    """What stands four spaces in from the text is a formula, kept line by line; "C." is a name, and begins no list."""
    text = re.sub(r"(?m)^(\S.*\n)\n(?= {4}\S)", r"\1\n.. code-block:: text\n\n", "\n".join(lines))
    lines[:] = re.sub(r"(?m)\b([A-Z])\.(?=\s|$)", r"\1\\.", text).split("\n")


def skip_added(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """What a NamedTuple and scikit-learn add to a class: its fields over again, and the likes of set_fit_request."""
    module = getattr(obj, "__module__", type(obj).__module__)
    return True if module.startswith(("_collections", "sklearn")) else None


def names_as_imported(app: Sphinx, doctree: document) -> None:
    """A class is the one that its module has by that name: Sphinx would link any that ends alike, or none."""
    for node in doctree.findall(pending_xref):
        if node.get("refspecific") is False:
            del node["refspecific"]
        found = getattr(sys.modules.get(node.get("py:module")), node["reftarget"], None)
        if inspect.isclass(found):
            node["reftarget"] = f"{found.__module__}.{found.__qualname__}"


def setup(app: Sphinx) -> None:
    """Connect them."""
    app.connect("autodoc-process-signature", signature_as_written)
    app.connect("autodoc-process-docstring", text_as_written, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_added)
    app.connect("doctree-read", names_as_imported)
