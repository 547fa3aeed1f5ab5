"""Edge cases of every public function of the formulas: array types, dtypes, values near overflow and underflow.

A function joins by being public and saying ``ArrayLike``; a parameter of a new name, by standing in `ARGUMENTS`.
"""

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxcls
from jaxcls import losses, two_layer
from jaxcls.classifier import two_layer_net
from parity_tests.support.cases import slow

RNG = np.random.default_rng(0)
N, D, H, C = 5, 4, 3, 6


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def labels(num_examples: int, num_classes: int) -> np.ndarray:
    return np.arange(num_examples, dtype=np.int32) % num_classes


ARGUMENTS: dict[str, Any] = {
    "X": normal(N, D),
    "y": labels(N, C),
    "reg": np.array(0.1, np.float32),
    "W": normal(D, C),
    "params": two_layer.Params(normal(D, H), normal(H), normal(H, C), normal(C)),
    "logits": normal(N, C),
    "x": normal(N, D),
    "grad": 2 * normal(N, D),
    "upstream": normal(N, D),
    "a": normal(N, D),
    "b": normal(N, D),
}
SETTINGS: dict[str, Any] = {  # no arrays: nothing to vary
    "key": jax.random.key(0),
    "num_features": D,
    "num_hidden": H,
    "num_classes": C,
    "num_checks": 3,
    "f": lambda x: x * x,
    "classifier": two_layer_net(),
}
OTHERWISE = {
    "gradcheck.sparse_check": {"f": lambda x: jnp.sum(x * x)},
    "logistic.path": {
        "reg": np.array([1.0, 2.0], np.float32),
        "weights": np.ones(N, np.float32),
        "num_classes": C,
    },
    "ridge.path": {"reg": np.array([1.0, 2.0], np.float32), "weights": np.ones(N, np.float32), "num_classes": C},
}
SOLVED = ("logistic.path", "ridge.path")  # these convert what they are given


def takes_arrays() -> dict[str, tuple[Callable[..., Any], list[str]]]:
    """Every public function that says it takes anything like an array, and those parameters."""
    found = {}
    for module in (getattr(jaxcls, name) for name in jaxcls.__all__):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                parameters = [*node.args.args, *node.args.kwonlyargs]
                annotations = {parameter.arg: ast.unparse(parameter.annotation) for parameter in parameters}
                arrays = [
                    name
                    for name, text in annotations.items()
                    if "ArrayLike" in text or (text == "Params" and module is two_layer)
                ]
                if arrays:
                    found[f"{module.__name__.split('.')[1]}.{node.name}"] = (getattr(module, node.name), arrays)
    return found


FUNCTIONS = {name: function for name, (function, _) in takes_arrays().items()}
ARRAYS = [(name, array) for name, (_, arrays) in takes_arrays().items() for array in arrays]


def arguments(name: str) -> dict[str, Any]:
    """Default arguments of a function under test."""
    given = ARGUMENTS | SETTINGS | OTHERWISE.get(name, {})
    found = {}
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
        if parameter.default is inspect.Parameter.empty or parameter.name in ARGUMENTS | OTHERWISE.get(name, {}):
            found[parameter.name] = given[parameter.name]
    return found


def call(name: str, given: dict[str, Any]) -> list[np.ndarray]:
    parameters = [p for p in inspect.signature(FUNCTIONS[name]).parameters.values() if p.name in given]
    positional = [given[p.name] for p in parameters if p.kind != p.KEYWORD_ONLY]
    keywords = {p.name: given[p.name] for p in parameters if p.kind == p.KEYWORD_ONLY}
    return [np.asarray(leaf) for leaf in jax.tree.leaves(FUNCTIONS[name](*positional, **keywords))]


class Frame:
    """An object with ``__array__``, as a data frame is to numpy."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


def read_only(array: np.ndarray) -> np.ndarray:
    array = np.array(array)
    array.flags.writeable = False
    return array


SAME: dict[str, Callable[[np.ndarray], Any]] = {
    "jax": jnp.asarray,
    "torch": lambda a: torch.tensor(a),
    "a list": lambda a: a.tolist(),
    "a frame": Frame,
    "Fortran order": lambda a: np.array(a, order="F"),
    "every second row": lambda a: np.repeat(a, 2, axis=0)[::2] if a.ndim else a,
    "reversed": lambda a: np.array(a[::-1])[::-1] if a.ndim else a,
    "read-only": read_only,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "twice as wide": lambda a: a.astype(f"{a.dtype.kind}8"),
}
REFUSED: dict[str, Callable[[np.ndarray], Any]] = {
    "masked": lambda a: np.ma.masked_array(a, mask=False),
    "objects": lambda a: a.astype(object),
    "text": lambda a: a.astype(str),
    "None": lambda a: None,
    "dates": lambda a: a.astype("M8[s]"),
    "ragged": lambda a: [*(a.tolist()[:-1] if a.ndim else [1]), [1, 2, 3, [4]]],
}
NOT_THE_DTYPE: dict[str, Callable[[np.ndarray], Any]] = {
    "float16 among float32": lambda a: a.astype(np.float16),
    "integers": lambda a: a.astype(int),
    "bytes": lambda a: a.astype(np.uint8),
    "booleans": lambda a: a.astype(bool),
    "complex": lambda a: a.astype(complex),
}


def with_one(name: str, argument: str, change: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    given = arguments(name)
    old = given[argument]
    # Of a net's params, one array.
    return given | {argument: old._replace(W2=change(old.W2)) if isinstance(old, tuple) else change(old)}


pytestmark = pytest.mark.usefixtures("no_type_checker")


@pytest.mark.parametrize("kind_of_array", SAME)
def test_any_array_type_is_accepted(kind_of_array: str) -> None:
    for name, argument in ARRAYS:
        expected = call(name, arguments(name))
        for ours, theirs in zip(call(name, with_one(name, argument, SAME[kind_of_array])), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name}({argument})")
            assert ours.dtype == theirs.dtype, f"{name}({argument})"


@pytest.mark.parametrize("kind_of_array", REFUSED)
def test_what_is_no_array_of_numbers_is_rejected_with_one_line(kind_of_array: str) -> None:
    for name, argument in ARRAYS:
        if kind_of_array == "None" and inspect.signature(FUNCTIONS[name]).parameters[argument].default is None:
            continue  # what it means by itself
        said = refusal(name, argument, REFUSED[kind_of_array])
        what = "W" if argument == "params" else argument
        assert re.match(rf"{what}2? must be an array", said), f"{name}({argument}): {said}"


@pytest.mark.parametrize("kind_of_array", NOT_THE_DTYPE)
def test_another_dtype_is_rejected_with_one_line(kind_of_array: str) -> None:
    for name, argument in ARRAYS:
        taken = {"y": ("integers", "bytes"), "logits": ("float16 among float32",)}.get(argument, ())
        if name.startswith("gradcheck") or name.endswith((".append_ones", ".sum_of_squares", ".penalty")):
            continue  # these take any numbers
        real = argument == "reg" or (name in SOLVED and argument != "y")
        if kind_of_array in taken or (real and kind_of_array != "complex"):
            call(name, with_one(name, argument, NOT_THE_DTYPE[kind_of_array]))
            continue
        assert refusal(name, argument, NOT_THE_DTYPE[kind_of_array]), f"{name}({argument})"


def refusal(name: str, argument: str, change: Callable[[np.ndarray], Any]) -> str:
    """The one line."""
    with pytest.raises((TypeError, ValueError)) as raised:
        call(name, with_one(name, argument, change))
    said = str(raised.value)
    assert "\n" not in said, f"{name}({argument}): {said}"
    assert len(said) < 200, f"{name}({argument}): {said}"
    return said


def problem(n: int = N, d: int = D, c: int = C, scale: float = 1.0, reg: float = 0.1, **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X, W = scale * rng.standard_normal((n, d)), rng.standard_normal((d, c))
    params = two_layer.Params(*(rng.standard_normal(shape) for shape in ((d, H), (H,), (H, c), (c,))))
    return {"X": X, "W": W, "params": params, "y": labels(n, c), "reg": reg, "logits": X @ W} | more


NUMBERS = {
    "denormal features": problem(scale=1e-41),
    "features of 1e30": problem(scale=1e30),
    "logits of 1e38, both signs": problem(logits=np.where(np.arange(N)[:, None] * np.arange(C) % 3, 1e38, -1e38)),
    "all logits equal": problem(logits=np.full((N, C), 7.0), W=np.zeros((D, C))),
    "two classes": problem(c=2),
    "ten thousand classes": problem(c=10_000),
    "one example": problem(n=1),
    "one feature": problem(d=1),
    "one example, one feature, two classes": problem(n=1, d=1, c=2),
    "all labels equal": problem(y=np.zeros(N, np.int32)),
    "no penalty": problem(reg=0.0),
    "a penalty of 1e30": problem(reg=1e30),
    "a penalty of 1e-40": problem(reg=1e-40),
}
NOT_CHECKED = ("gradcheck", "train", "logistic", "ridge.path", "metrics")  # have tests of their own, or jump at ties
CHECKED = [name for name in FUNCTIONS if not name.startswith(NOT_CHECKED) and "naive" not in name]


@pytest.mark.parametrize("kind_of_array", [np.array, list, Frame])
@pytest.mark.parametrize("label", [2**32, 2**32 + 1, -(2**32), 2**63 - 1])
def test_a_label_too_wide_for_32_bits_is_out_of_range(label: int, kind_of_array: Callable[..., Any]) -> None:
    y = np.array([0, label])
    loss, _ = losses.cross_entropy_and_grad(
        np.zeros((2, 3), np.float32), y.tolist() if kind_of_array is list else kind_of_array(y)
    )
    assert np.isnan(loss)


OTHER_SHAPES = [name for name in NUMBERS if name.startswith(("one ", "two ", "ten "))]  # compiled for each


@pytest.mark.parametrize("edge", [name for name in NUMBERS if name not in OTHER_SHAPES] + slow(*OTHER_SHAPES))
def test_values_near_overflow_and_underflow_are_right(edge: str) -> None:
    for name in CHECKED:
        if edge == "denormal features" and name.endswith("predict"):
            continue  # XLA takes them for zeros, and all scores are equal
        given = {key: NUMBERS[edge][key] for key in arguments(name)}
        if "logits" in given and "y" in given:
            given["y"] = labels(*given["logits"].shape)
        single = jax.tree.map(lambda a: a if np.asarray(a).dtype.kind == "i" else np.float32(a), given)
        found = call(name, single)
        with jax.enable_x64(True):
            double = jax.tree.map(lambda a: a if np.asarray(a).dtype.kind == "i" else np.float64(a), single)
            expected = call(name, double)
        for ours, exact in zip(found, expected, strict=True):
            assert np.isfinite(exact).all(), f"{name}: float64 itself"
            size = np.abs(exact.astype(np.float64)).max(initial=0)
            if size > np.finfo(np.float32).max / 4:
                continue  # too large for float32 to hold
            np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5 * size + 1e-37, err_msg=name)


@pytest.mark.parametrize("half", [jnp.bfloat16, *slow(jnp.float16)])
def test_half_precision_is_right_to_its_own_precision(half: Any) -> None:
    to_half = lambda a: a if np.asarray(a).dtype.kind == "i" else jnp.asarray(a, half)  # noqa: E731
    for name in CHECKED:
        given = {key: problem()[key] for key in arguments(name)}
        rounded = jax.tree.map(to_half, given)
        found = call(name, rounded)
        with jax.enable_x64(True):
            exact = call(name, jax.tree.map(lambda a: a if a.dtype.kind == "i" else np.asarray(a, np.float64), rounded))
        for ours, theirs in zip(found, exact, strict=True):
            if name.endswith(("predict", "hinge_and_grad")):
                continue  # these jump where two scores round to one, or a margin to 0
            assert ours.dtype == half, name
            error = np.abs(ours.astype(np.float64) - theirs).max()
            assert error <= 8 * float(jnp.finfo(half).eps) * np.abs(theirs).max(), name
