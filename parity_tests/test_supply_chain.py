"""Calls and imports that jaxcls never makes, looked for in its syntax trees."""

import ast
import re
import sys
from pathlib import Path

import pytest

import jaxcls
import torchref

SOURCES = [path for package in (jaxcls, torchref) for path in Path(package.__file__).parent.rglob("*.py")]
PACKAGE = Path(jaxcls.__file__).parent
MODULES = {"subprocess", "marshal", "shelve", "dill", "joblib", "cloudpickle", "ctypes", "code", "runpy", "pty"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "breakpoint"),
    *("pickle.load", "pickle.loads", "torch.load", "importlib.import_module"),
    *("os.system", "os.popen", "os.startfile", "tarfile.extractall", "shutil.unpack_archive"),
}
ATTRIBUTES = ("os.exec", "os.spawn", "os.posix_spawn", "os.fork")
KEYWORDS = {"shell": True, "allow_pickle": True, "trust_remote_code": True}


def violations(tree: ast.AST) -> list[str]:
    """Nodes of this tree that run code from elsewhere, or could."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [name.name for name in node.names]
            roots = {name.split(".")[0] for name in (names if isinstance(node, ast.Import) else [module])}
            found += sorted(roots & MODULES)
            found += [call for call in (f"{module}.{name}" for name in names) if call in CALLS]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            harmless = called == "torch.load" and "weights_only=True" in ast.unparse(node)
            found += [called] if (called in CALLS and not harmless) or called.startswith(ATTRIBUTES) else []
            found += [
                f"{called}({keyword.arg}={ast.unparse(keyword.value)})"
                for keyword in node.keywords
                if keyword.arg in KEYWORDS and ast.unparse(keyword.value) != "False"
            ]
            found += [called] if called.endswith((".extractall", ".extract")) else []
    return found


LAZILY = PACKAGE / "__init__.py"  # imports its own modules, whose names it lists


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_runs_code_from_elsewhere(path: Path) -> None:
    assert violations(ast.parse(path.read_text())) == ["importlib.import_module"] * (path == LAZILY)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads",
        "eval('1')",
        "import subprocess",
        "run(command, shell=True)",
        "np.load(path, allow_pickle=flag)",
        "os.execv(path, args)",
        "archive.extractall()",
        "torch.load(path)",
    ],
)
def test_it_would_be_found(source: str) -> None:
    assert len(violations(ast.parse(source))) == 1


def test_the_core_imports_no_more_than_the_base_install() -> None:
    allowed = {"jax", "jaxlib", "numpy", "scipy", "optax", "jaxtyping", "jaxcls"}
    flat = ("losses", "softmax", "two_layer", "logistic", "gradcheck", "classifier", "train", "grid", "sweep", "probe")
    houses = (path for house in ("numerics", "solver", "engine") for path in (PACKAGE / house).glob("*.py"))
    for path in (*(PACKAGE / f"{name}.py" for name in flat), *houses):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                roots = {name.split(".")[0] for name in names}
                assert all(root in allowed or root in sys.stdlib_module_names for root in roots), roots


@pytest.mark.parametrize("house", ["data", "engine", "numerics", "solver"])
def test_nobody_imports_past_the_door_of_a_house(house: str) -> None:
    outside = [path for path in PACKAGE.rglob("*.py") if PACKAGE / house not in path.parents]
    assert len(outside) > 20
    for path in outside:
        modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert [name for name in modules if name and name.startswith(f"jaxcls.{house}.")] == [], path


def test_no_module_imports_one_below_it_on_the_architecture_page() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8").split("```")[1]
    order = re.findall(r"^  (\w+)(?:\.py|/)", page, re.MULTILINE)
    assert len(order) > 15
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if own in order and isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxcls":
                _, *inside = node.module.split(".")
                imported = inside[:1] or [alias.name for alias in node.names]
                assert [name for name in imported if name in order[order.index(own) + 1 :]] == [], path
