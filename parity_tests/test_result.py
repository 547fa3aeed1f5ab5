"""The result of a sweep: labels of raw features, its repr; and mistakes with the library in one line."""

import importlib
import sys
from collections.abc import Callable

import numpy as np
import optax
import pytest
import scipy.sparse

from jaxcls import data, probe, sweep
from jaxcls.data import Source
from jaxcls.grid import Grid

GRID = Grid(lr=[0.1], reg=[1e-3])


@pytest.fixture(scope="module")
def source() -> Source:
    y = np.array(["ant", "bee", "cat"] * 40)
    X = 1e3 + np.random.default_rng(0).normal(0, 0.1, (120, 4)) + (y[:, None] == np.array(["ant", "bee", "cat", ""]))
    return data.from_arrays(X, y)


def test_raw_features_become_labels(source: Source) -> None:
    splits = data.standard(source)
    found = probe.run(splits, reg=[1e-3])
    X, names = source.X[source.test], np.array(source.class_names)
    predicted, proba = found.predict(X), found.predict_proba(X)
    assert np.mean(predicted == names[source.y[source.test]]) == found.test_accuracy
    np.testing.assert_array_equal(names[proba.argmax(axis=1)], predicted)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert (
        repr(found)
        == f"SweepResult of 1 cells (1 reg), best reg 0.001: {found.table['val_accuracy'][0]:.4f} on val, \
{found.test_accuracy:.4f} on test"
    )
    with pytest.raises(ValueError, match=r"^X must have shape \[N, 4\], got \[18, 3\]$"):
        found.predict(X[:, :3])


def test_a_result_without_params_predicts_nothing(source: Source) -> None:
    found = sweep.run(data.standard(source), Grid(lr=[1e30], reg=[0.0]), steps=5)
    assert repr(found) == "SweepResult of 1 cells (1 lr x 1 reg x 1 seed), all diverged"
    with pytest.raises(ValueError, match=r"^the result must hold the params of a best cell, got none$"):
        found.predict(source.X)


MISTAKES: dict[str, tuple[Callable, type[Exception], str]] = {
    "no optimizer of this name": (
        lambda splits: sweep.run(splits, GRID, steps=5, optimizer="adm"),
        ValueError,
        "optimizer must be one of sgd, momentum, nesterov, adam, adamw, rmsprop, or of optax, got 'adm'",
    ),
    "an optimizer with its lr": (
        lambda splits: sweep.run(splits, GRID, steps=5, optimizer=optax.adam(1e-3)),
        TypeError,
        "optimizer must be a function of lr, such as lambda lr: optax.adam(lr), got one with a fixed lr",
    ),
    "an optimizer that needs the loss": (
        lambda splits: sweep.run(splits, GRID, steps=5, optimizer=optax.lbfgs),
        TypeError,
        "optimizer must update from the gradient alone: ",
    ),
    "arrays": (
        lambda splits: sweep.run((splits.train.X, splits.train.y), GRID, steps=5),
        TypeError,
        "splits must be prepared data, such as data.standard(data.from_arrays(X, y)), got tuple",
    ),
    "dicts": (
        lambda splits: sweep.run(splits, [{"lr": 0.1}], steps=5),
        TypeError,
        "grid must be a Grid or Points, such as Grid(lr=[0.1, 1.0], reg=[1e-3]), got list",
    ),
    "a sparse matrix": (
        lambda splits: data.from_arrays(scipy.sparse.eye(5).tocsr(), np.arange(5)),
        TypeError,
        "X must be dense, X.toarray() makes it, got csr_matrix",
    ),
}


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_with_the_library_is_one_line(mistake: str, source: Source) -> None:
    call, error, sentence = MISTAKES[mistake]
    with pytest.raises(error) as raised:
        call(data.standard(source))
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)


def test_an_optimizer_goes_by_its_name(source: Source) -> None:
    splits = data.standard(source)
    by_name, itself = (sweep.run(splits, GRID, steps=5, optimizer=each) for each in ("adam", optax.adam))
    np.testing.assert_array_equal(by_name.losses, itself.losses)


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("jaxcls.artifacts", "safetensors", '"jaxcls[sweep]"'),
        ("jaxcls.artifacts", "matplotlib", '"jaxcls[sweep]"'),
        ("torchref", "torch", "torch"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package or name.startswith(module)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"^{module} needs {package}: pip install {extra}$".replace("[", r"\[")
    ):
        importlib.import_module(module)
