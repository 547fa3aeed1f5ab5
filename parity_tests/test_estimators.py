"""The estimators: scikit-learn's own checks, and the numbers of its `LogisticRegression` and `GridSearchCV`."""

import importlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight
from sklearn.utils.estimator_checks import estimator_checks_generator

from jaxcls import sweep
from jaxcls.classifier import two_layer_net
from jaxcls.data import Split, Splits
from jaxcls.estimators import SoftmaxClassifier, SoftmaxClassifierCV, TwoLayerClassifier, TwoLayerClassifierCV
from jaxcls.grid import Grid
from parity_tests.support.cases import slow

REG = (1e-1, 1e-2, 1e-3, 1e-4)
NET: dict[str, Any] = {"steps": 100, "batch_size": 50, "random_state": 0}
ALL = [
    SoftmaxClassifier(),
    SoftmaxClassifierCV(8),  # of the 96 that it tries by default
    TwoLayerClassifier(steps=200),
    TwoLayerClassifierCV(lr=(3e-3, 1e-2), reg=(1e-4,), cv=2, steps=200),
]


@pytest.fixture(scope="module")
def iris() -> tuple[np.ndarray, np.ndarray]:
    """Three classes of 50, in no order."""
    X, y = load_iris(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(y))
    return X[rows], y[rows]


# Each of these fits data of another shape, which compiles everything again. The others fit 20 examples of 3 features,
# or nothing.
OTHER_SHAPES = {
    *("class_weight_classifiers", "classifier_data_not_an_array", "classifiers_classes", "classifiers_predictions"),
    *("classifiers_train", "dataframe_column_names_consistency", "decision_proba_consistency", "dtype_object"),
    *("estimator_sparse_tag", "estimators_dtypes", "estimators_fit_returns_self", "estimators_nan_inf"),
    *("estimators_overwrite_params", "estimators_pickle", "fit2d_1feature", "fit_check_is_fitted", "fit_idempotent"),
    *("fit_score_takes_y", "inplace_ensure_writeable", "n_features_in", "n_features_in_after_fitting"),
    *("non_transformer_estimators_n_iter", "nonsquare_error", "pipeline_consistency", "positive_only_tag_during_fit"),
    *("readonly_memmap_input", "requires_y_none", "sample_weight_equivalence_on_dense_data", "sample_weights_list"),
    *("sample_weights_not_an_array", "sample_weights_not_overwritten", "sample_weights_pandas_series"),
    *("sample_weights_shape", "supervised_y_2d"),
}
KEPT = {  # of those, what the default suite has
    "SoftmaxClassifier": {"estimators_nan_inf", "estimators_pickle", "fit_idempotent"},
    "TwoLayerClassifier": {"estimators_pickle"},
}


def checks() -> Iterator[Any]:
    """The checks of scikit-learn, for each estimator."""
    for estimator in ALL:
        for _, check in estimator_checks_generator(estimator):
            name, of = check.func.__name__.removeprefix("check_"), type(estimator).__name__
            more = ", ".join(f"{key}={value}" for key, value in check.keywords.items())
            slow = (name in OTHER_SHAPES and name not in KEPT.get(of, ())) or "readonly_memmap" in more
            yield pytest.param(
                estimator, check, id=f"{of}, {name} {more}".strip(), marks=pytest.mark.slow if slow else ()
            )


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_the_checks_of_scikit_learn_pass(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    check(clone(estimator))


def of(estimators: list[BaseEstimator], *in_default: str) -> list[Any]:
    """Estimators as parameters; slow, but for these."""
    named = [(estimator, type(estimator).__name__) for estimator in estimators]
    return [pytest.param(e, id=name, marks=() if name in in_default else pytest.mark.slow) for e, name in named]


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 1: 0.5}])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_logistic_regression(iris: tuple, num_classes: int, class_weight: Any, weighted: bool) -> None:
    X, y = iris[0], np.minimum(iris[1], num_classes - 1)
    weights = np.random.default_rng(1).uniform(0, 3, len(y)) if weighted else np.ones(len(y))
    # Balanced by the sum of its weights, every class has the same share of them.
    total = np.sum(weights * (1 if class_weight == "balanced" else compute_sample_weight(class_weight, y)))
    for reg in (1e-1, 1e-3):
        ours = SoftmaxClassifier(reg, class_weight=class_weight, tol=1e-14).fit(X, y, weights)
        strength = 1 / ((2 if num_classes > 2 else 1) * total * reg)
        theirs = LogisticRegression(
            C=strength, class_weight=class_weight, solver="newton-cholesky", tol=1e-14, max_iter=1000
        )
        theirs.fit(X, y, weights)
        assert ours.coef_.shape == theirs.coef_.shape
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
        biases = [model.intercept_ - (model.intercept_.mean() if num_classes > 2 else 0) for model in (ours, theirs)]
        np.testing.assert_allclose(*biases, atol=1e-5)  # the same added to all of them changes nothing
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_precision_is_that_of_the_features_whatever_jax_is_set_to(iris: tuple, kind: type) -> None:
    X, y = iris[0].astype(kind), iris[1]
    found = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            linear, net = SoftmaxClassifier().fit(X, y), TwoLayerClassifier(**NET).fit(X, y)
        assert linear.coef_.dtype == linear.predict_proba(X).dtype == kind
        assert net.params_.W1.dtype == net.predict_proba(X).dtype == kind
        found.append((linear.coef_, linear.intercept_, *net.params_))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_cv_of_regularisation_values_is_grid_search(iris: tuple) -> None:
    ours = SoftmaxClassifierCV(REG).fit(*iris)
    theirs = GridSearchCV(SoftmaxClassifier(), {"reg": REG}, cv=5).fit(*iris)
    scores = [key for key in theirs.cv_results_ if key.endswith("test_score") and key != "rank_test_score"]
    assert len(scores) == 7
    for key in scores:
        np.testing.assert_array_equal(ours.cv_results_[key], theirs.cv_results_[key])
    assert set(theirs.cv_results_) <= set(ours.cv_results_)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    np.testing.assert_allclose(ours.predict_proba(iris[0]), ours.best_estimator_.fit(*iris).predict_proba(iris[0]))


@pytest.mark.parametrize("cv", [3, ShuffleSplit(3, test_size=30, random_state=0)], ids=["parts", "overlapping"])
@pytest.mark.parametrize("hidden", [(5,), *slow((5, 10))], ids=str)
def test_cv_of_a_grid_is_grid_search(iris: tuple, hidden: tuple[int, ...], cv: Any) -> None:
    axes = {"hidden": hidden, "lr": (1e-3, 1e-2), "reg": (0.0, 1e-2)}
    ours = TwoLayerClassifierCV(**axes, cv=cv, **NET).fit(*iris)
    theirs = GridSearchCV(TwoLayerClassifier(**NET), axes, cv=cv).fit(*iris)
    for cell, *scores in zip(
        *(ours.cv_results_[key] for key in ("params", *(f"split{k}_test_score" for k in range(3)))), strict=True
    ):
        row = theirs.cv_results_["params"].index(cell)
        assert scores == [theirs.cv_results_[f"split{k}_test_score"][row] for k in range(3)]
    np.testing.assert_array_equal(
        ours.predict_proba(iris[0]), TwoLayerClassifier(**ours.best_params_, **NET).fit(*iris).predict_proba(iris[0])
    )


@pytest.mark.usefixtures("float64")
def test_a_net_is_the_cell_of_a_sweep(iris: tuple) -> None:
    X, y = iris
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    split = Split(X, y)
    splits = Splits(split, split, split, ("a", "b", "c"), np.zeros(4), np.ones(4), None, "iris")
    grid = Grid(lr=[3e-3], reg=[1e-4], hidden=[100], seed=[seed])
    options = {"classifier": two_layer_net(init_scale=0.1), "optimizer": optax.adam}
    cell = sweep.run(splits, grid, steps=100, batch_size=50, **options)
    net = TwoLayerClassifier(**NET).fit(X, y)
    np.testing.assert_allclose(net.loss_curve_, cell.losses[0], rtol=1e-10)
    for ours, theirs in zip(net.params_, cell.params, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("estimator", of(ALL, "SoftmaxClassifierCV"))
def test_in_a_pipeline_cross_validated_cloned_and_pickled(iris: tuple, estimator: BaseEstimator) -> None:
    X, y = iris[0], np.array(["setosa", "versicolor", "virginica"])[iris[1]]
    estimator = clone(estimator)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=0)
    model = make_pipeline(StandardScaler(), estimator)
    assert cross_val_score(model, X, y, cv=3).mean() > 0.9
    model.fit(X, y)
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), model.predict_proba(X))
    assert clone(estimator).get_params() == estimator.get_params()


@pytest.mark.parametrize("estimator", [SoftmaxClassifier(), *slow(SoftmaxClassifierCV(REG))])
def test_balanced_is_the_weights_that_balance(iris: tuple, estimator: BaseEstimator) -> None:
    X, y = (array[iris[1] < 2][:80] for array in iris)
    rows = np.append(np.flatnonzero(y == 0)[:10], np.flatnonzero(y == 1))
    X, y = X[rows, :2], y[rows]
    balanced = clone(estimator).set_params(class_weight="balanced").fit(X, y)
    by_hand = clone(estimator).set_params(class_weight={0: 1 / np.sum(y == 0), 1: 1 / np.sum(y == 1)}).fit(X, y)
    np.testing.assert_allclose(balanced.predict_proba(X), by_hand.predict_proba(X), rtol=1e-6)
    if isinstance(estimator, SoftmaxClassifier):
        weighted = clone(estimator).fit(X, y, compute_sample_weight("balanced", y))
        np.testing.assert_array_equal(balanced.coef_, weighted.coef_)


def test_among_equal_accuracies_the_lower_log_loss_wins_then_the_first(iris: tuple) -> None:
    X, y = (array[iris[1] < 2] for array in iris)  # any plane of these separates the two classes
    found = SoftmaxClassifierCV([1e-1, 1e-4, 1e-2, 1e-4]).fit(X, y).cv_results_
    assert set(found["mean_test_score"]) == {1.0}
    assert found["rank_test_score"].tolist() == [4, 1, 3, 2]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fold_that_did_not_converge_has_seen_nothing_of_what_it_holds_out() -> None:
    """Labels that mean nothing: whoever scores above chance on them has seen them."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 200)), rng.integers(0, 3, 60)
    ours = SoftmaxClassifierCV((1e-6,), max_iter=1).fit(X, y)
    theirs = GridSearchCV(SoftmaxClassifier(max_iter=1), {"reg": (1e-6,)}, cv=5).fit(X, y)
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])
    assert ours.best_score_ < 0.5


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_weight_below_0_is_refused(iris: tuple, class_weight: str | None) -> None:
    weights = np.where(np.arange(150) == 7, -1.0, 1.0)
    with pytest.raises(ValueError, match=r"^weights must be finite, not below 0, and not all 0$"):
        SoftmaxClassifier(class_weight=class_weight).fit(*iris, weights)


def test_a_class_whose_weights_are_0_is_no_class(iris: tuple) -> None:
    X, y = iris
    model = SoftmaxClassifier(class_weight="balanced", tol=1e-14)
    balanced = clone(model).fit(X, y, (y < 2).astype(float))
    without = model.fit(X[y < 2], y[y < 2])
    np.testing.assert_allclose((balanced.coef_[1] - balanced.coef_[0]), without.coef_[0], atol=1e-6)
    assert 2 not in balanced.predict(X)


def test_groups_stay_together(iris: tuple) -> None:
    groups = np.arange(150) % 7
    ours = SoftmaxClassifierCV(REG, cv=GroupKFold(3)).fit(*iris, groups=groups)
    theirs = GridSearchCV(SoftmaxClassifier(), {"reg": REG}, cv=GroupKFold(3)).fit(*iris, groups=groups)
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])


def test_a_fold_without_a_class_still_counts(iris: tuple) -> None:
    X, y = iris
    folds = [(np.flatnonzero(y < 2), np.flatnonzero(y == 2)), (np.flatnonzero(y > 0), np.flatnonzero(y == 0))]
    found = SoftmaxClassifierCV(REG, cv=folds).fit(X, y)
    assert set(found.cv_results_["mean_test_score"]) == {0.0}
    assert np.isfinite(found.cv_results_["mean_test_log_loss"]).all()


@pytest.mark.parametrize("estimator", of(ALL, "SoftmaxClassifierCV", "TwoLayerClassifier"))
def test_a_data_frame_lends_its_names(iris: tuple, estimator: BaseEstimator) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(iris[0], columns=["a", "b", "c", "d"])
    model = clone(estimator).fit(frame, pandas.Series(iris[1]))
    assert model.feature_names_in_.tolist() == getattr(model, "best_estimator_", model).feature_names_in_.tolist()
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert getattr(model, "best_estimator_", model).score(frame, iris[1]) == model.score(frame, iris[1])
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c", "d"]])


def test_a_cell_that_diverges_is_not_a_number_and_comes_last(iris: tuple) -> None:
    found = TwoLayerClassifierCV([5], [1e300, 1e-2], [0.0], optimizer="sgd", cv=2, **NET).fit(*iris)
    assert np.isnan(found.cv_results_["mean_test_score"]).tolist() == [True, False]
    assert found.cv_results_["rank_test_score"].tolist() == [2, 1]
    assert found.best_params_["lr"] == 1e-2


def test_any_optimizer_of_optax_trains(iris: tuple) -> None:
    net = TwoLayerClassifier(lr=1e-2, optimizer=optax.lion, **NET).fit(*iris)
    assert net.score(*iris) > 0.9
    assert net.loss_curve_.shape == (100,)


def test_what_did_not_converge_is_said(iris: tuple) -> None:
    with pytest.warns(ConvergenceWarning, match="1 of 1 values of reg did not converge in 1 steps"):
        assert SoftmaxClassifier(1e-6, max_iter=1).fit(*iris).n_iter_ == 1


MISTAKES: dict[str, tuple[BaseEstimator, str]] = {
    "reg 0": (SoftmaxClassifier(0.0), "reg must hold finite values above 0, where there is an optimum, got 0"),
    "reg is text": (SoftmaxClassifier("l2"), "reg must be one number, got 'l2'"),
    "one reg": (SoftmaxClassifierCV(0.1), r"reg must hold at least one value, got shape \[\]"),
    "no reg": (SoftmaxClassifierCV([]), r"reg must hold at least one value, got shape \[0\]"),
    "no step": (SoftmaxClassifier(max_iter=0), "max_iter must be at least 1, got 0"),
    "class weight": (SoftmaxClassifier(class_weight="even"), "The 'class_weight' parameter .* Got 'even' instead."),
    "folds": (SoftmaxClassifierCV(cv=1), ".* at least one train/test split .*"),
    "hidden 0": (TwoLayerClassifier(hidden=0), "hidden must hold finite values not below 1, got 0"),
    "hidden 1.5": (TwoLayerClassifier(hidden=1.5), "hidden must be one integer, got 1.5"),
    "lr -1": (TwoLayerClassifier(lr=-1), "lr must hold finite values not below 0, got -1.0"),
    "several": (SoftmaxClassifier(reg=[0.1, 1.0]), r"reg must be one number, got \[0.1, 1.0\]"),
    "tol": (SoftmaxClassifier(tol=np.inf), "tol must be finite and not below 0, got inf"),
    "max_iter": (SoftmaxClassifier(max_iter="many"), "max_iter must be one integer, got 'many'"),
    "no hidden": (TwoLayerClassifierCV(hidden=[]), r"hidden must be a sequence of at least one value, got \[\]"),
    "one lr": (TwoLayerClassifierCV(lr=0.1), "lr must be a sequence of at least one value, got 0.1"),
    "steps": (TwoLayerClassifier(steps=0), "steps must be at least 1, got 0"),
    "batch": (TwoLayerClassifierCV(batch_size=0), "batch_size must be at least 1, got 0"),
    "optimizer": (
        TwoLayerClassifier(optimizer="adm"),
        "optimizer must be one of sgd, momentum, nesterov, adam, adamw, rmsprop, or of optax, got 'adm'",
    ),
    "lr too large": (
        TwoLayerClassifier(lr=1e300, optimizer="sgd", **NET),
        r"lr must be one at which the loss stays finite, got 1e\+300",
    ),
    "all lr too large": (
        TwoLayerClassifierCV([5], [1e300], [0.0], optimizer="sgd", cv=2, **NET),
        "lr must hold one at which the loss stays finite in every fold, got none",
    ),
}


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_when_it_is_fitted(iris: tuple, mistake: str) -> None:
    estimator, sentence = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=f"^{sentence}$"):
        estimator.fit(*iris)


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_one_class_and_sparse_features_are_refused(iris: tuple, estimator: BaseEstimator) -> None:
    with pytest.raises(ValueError, match=r"^y must hold at least two classes with a weight above zero, got 1 class$"):
        estimator.fit(iris[0], np.zeros(150))
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required"):
        estimator.fit(scipy.sparse.csr_array(iris[0]), iris[1])


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.utils.validation", None)
    monkeypatch.delitem(sys.modules, "jaxcls.estimators")
    with pytest.raises(ImportError, match=r'^jaxcls.estimators needs .*: pip install "jaxcls\[sklearn\]"$'):
        importlib.import_module("jaxcls.estimators")


def test_jaxcls_itself_imports_no_scikit_learn() -> None:
    code = "import sys, jaxcls; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
