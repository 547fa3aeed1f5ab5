"""scikit-learn estimators, for its pipelines, searches and cross-validation.

    SoftmaxClassifier       the linear classifier at its optimum, `jaxcls.logistic`
    SoftmaxClassifierCV     the best of many values of reg: the paths of all folds side by side
    TwoLayerClassifier      the two-layer net, by minibatch gradient descent, `jaxcls.train`
    TwoLayerClassifierCV    the best cell of a grid: one sweep for all cells and folds

As in scikit-learn, the dtype of X decides the precision: float32 trains in float32, anything else in float64, whatever
JAX's own default is. Features are not scaled: put a ``StandardScaler`` before a net.
"""

import functools
import inspect
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any, Self, TypeAlias

import jax
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray
from scipy.special import log_softmax

from jaxcls import logistic, optimizers, sampling, sweep, train, two_layer
from jaxcls.classifier import Classifier, two_layer_net
from jaxcls.crossval import Search, over_folds
from jaxcls.data import Folds, Split, Splits
from jaxcls.grid import Grid
from jaxcls.numerics import padded, pinned_generator
from jaxcls.optimizers import Optimizer
from jaxcls.result import SweepResult, total
from jaxcls.table import cv_results, rank_rows

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import check_cv
    from sklearn.utils import check_random_state, compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError:
    raise ImportError('jaxcls.estimators needs scikit-learn 1.6 or later: pip install "jaxcls[sklearn]"') from None

MatrixLike: TypeAlias = Any  # whatever scikit-learn validates: arrays, lists, data frames
VectorLike: TypeAlias = Any
FLOATS = (np.float64, np.float32)  # what X may be; anything else becomes the first
# From 1.7 on, scikit-learn balances classes by the sum of their sample weights; before, by their number of examples.
BALANCES_WEIGHTS = "sample_weight" in inspect.signature(compute_class_weight).parameters


class _Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Labels of any type, and scikit-learn's prediction methods computed from the logits."""

    def decision_function(self, X: MatrixLike) -> NDArray[np.floating]:
        """Logits, ``[N, C]``; for two classes the second minus the first, ``[N]``."""
        check_is_fitted(self)
        scores = self._scores(validate_data(self, X, reset=False, dtype=FLOATS))
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: MatrixLike) -> NDArray:
        """The most probable class of each example, ``[N]``."""
        scores = self.decision_function(X)
        return self.classes_[scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)]

    def predict_log_proba(self, X: MatrixLike) -> NDArray[np.floating]:
        """Log-probability of each class, ``[N, C]``."""
        scores = self.decision_function(X)
        return log_softmax(scores if scores.ndim == 2 else np.stack([np.zeros_like(scores), scores], axis=1), axis=1)

    def predict_proba(self, X: MatrixLike) -> NDArray[np.floating]:
        """Probability of each class, ``[N, C]``."""
        return np.exp(self.predict_log_proba(X))

    def _examples(self, X: MatrixLike, y: VectorLike) -> tuple[NDArray[np.floating], NDArray, NDArray[np.int32]]:
        """Validated X and y, and the labels as integers in ``[0, C)``."""
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        _check_classes(labels)
        return X, y, labels.astype(np.int32)


@dataclass(eq=False, repr=False, kw_only=True)
class _Logistic(_Classifier):
    """Constructor parameters shared by the linear estimators."""

    class_weight: Mapping[object, float] | str | None = None
    tol: float | None = None
    max_iter: int = 1000

    def _weights(self, y: NDArray, sample_weight: NDArray[np.floating]) -> NDArray[np.floating]:
        """The weight of each example: the sample weight times the class weight."""
        if self.class_weight is None:
            return sample_weight
        balance = {"sample_weight": sample_weight} if BALANCES_WEIGHTS else {}
        classes, labels = np.unique(y, return_inverse=True)
        with np.errstate(divide="ignore"):  # a class of weight 0
            of_class = compute_class_weight(self.class_weight, classes=classes, y=y, **balance)
        return sample_weight * np.where(np.isfinite(of_class), of_class, 0)[labels]

    def _path(self, X: NDArray, labels: NDArray, reg: Sequence[float] | NDArray, weights: NDArray) -> logistic.Optimum:
        for of_fold in weights.reshape(len(labels), -1).T:
            _check_classes(labels[of_fold > 0])
        if self.max_iter < 1:
            raise ValueError(f"max_iter must be at least 1, got {self.max_iter}")
        path = functools.partial(logistic.path, weights=weights, num_classes=len(self.classes_))
        with _precision(X):
            optimum = path(X, labels, reg, tol=self.tol, max_iterations=self.max_iter)
        if missed := int((~optimum.converged.reshape(len(reg), -1).all(axis=1)).sum()):
            message = f"{missed} of {len(reg)} values of reg did not converge in {self.max_iter} steps"
            warnings.warn(f"{message}: raise max_iter, or scale X", ConvergenceWarning, stacklevel=3)
        return optimum


@dataclass(eq=False, repr=False)
class SoftmaxClassifier(_Logistic):
    """The linear softmax classifier, at its optimum.

    Equal to scikit-learn's ``LogisticRegression`` with ``C = 1 / (2 N reg)``, N the sum of all weights; for two
    classes ``C = 1 / (N reg)``, since that has one column of weights, this two of opposite sign with half the penalty.

    Args:
      reg: strength of the penalty ``reg Σ W²``, above 0; the bias is not penalised.
      class_weight: weight of each class, by its label, or ``"balanced"``; 1 when not given.
      tol: see `jaxcls.logistic.path`.
      max_iter: the most evaluations of the loss and its gradient, per value of reg.

    Attributes:
      coef_, intercept_: ``[C, d]`` and ``[C]``; for two classes the second minus the first, ``[1, d]`` and ``[1]``.
      n_iter_: evaluations of the loss and its gradient.
      classes_, n_features_in_, feature_names_in_: see scikit-learn.

    Example:
      >>> from sklearn.datasets import load_digits
      >>> X, y = load_digits(return_X_y=True)
      >>> model = SoftmaxClassifier(reg=1e-4).fit(X[:1500] / 16, y[:1500])
      >>> model.score(X[1500:] / 16, y[1500:]) > 0.9
      True
    """

    reg: float = 1e-3

    def fit(self, X: MatrixLike, y: VectorLike, sample_weight: VectorLike = None) -> Self:
        """Train on ``X: [N, d]`` and ``y: [N]``, weighted by ``sample_weight: [N]``.

        Raises:
          ValueError: the examples are of one class, or a parameter or a weight is out of range.
          TypeError: an argument has the wrong type.
        """
        X, y, labels = self._examples(X, y)
        sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        return self._become(self._path(X, labels, [self.reg], self._weights(y, sample_weight)), 0)

    def _become(self, optimum: logistic.Optimum, k: int) -> Self:
        W = _fewest_columns(optimum.W[..., k])
        self.coef_, self.intercept_, self.n_iter_ = W[:-1].T, W[-1], int(optimum.iterations[k])
        return self

    def _scores(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        return X @ self.coef_.T + self.intercept_


@dataclass(eq=False, repr=False, kw_only=True)
class _Trained(_Classifier):
    """Constructor parameters shared by the nets."""

    steps: int = 1000
    batch_size: int = 200
    optimizer: str | Optimizer = "adam"
    init_scale: float = 0.1
    random_state: int | np.random.RandomState | None = None

    def _model(self) -> tuple[Classifier, Optimizer]:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        return two_layer_net(init_scale=self.init_scale), optimizers.as_optimizer(self.optimizer)

    def _grid(self, lr: Sequence[float], reg: Sequence[float], hidden: Sequence[int]) -> Grid:
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return Grid(lr=lr, reg=reg, hidden=hidden, seed=[seed])


@dataclass(eq=False, repr=False)
class TwoLayerClassifier(_Trained):
    """The two-layer net, trained on minibatches.

    Args:
      hidden: how many hidden units.
      lr: learning rate.
      reg: strength of the penalty ``reg (Σ W1² + Σ W2²)``.
      steps: how many minibatches.
      batch_size: examples in a minibatch, drawn with replacement.
      optimizer: a name in ``jaxcls.optimizers.OPTIMIZERS``, or any ``lr -> optax.GradientTransformation``.
      init_scale: standard deviation of the initial weights.
      random_state: seed of these and of the minibatches.

    Attributes:
      params_: the net, a `jaxcls.two_layer.Params`.
      loss_curve_: the minibatch loss before each step, penalty included, ``[steps]``.
      classes_, n_features_in_, feature_names_in_: see scikit-learn.

    Example:
      >>> from sklearn.datasets import load_digits
      >>> X, y = load_digits(return_X_y=True)
      >>> model = TwoLayerClassifier(random_state=0).fit(X[:1500] / 16, y[:1500])
      >>> model.score(X[1500:] / 16, y[1500:]) > 0.9
      True
    """

    hidden: int = 100
    lr: float = 3e-3
    reg: float = 1e-4

    def fit(self, X: MatrixLike, y: VectorLike) -> Self:
        """Train on ``X: [N, d]`` and ``y: [N]``.

        Raises:
          ValueError: the examples are of one class, a parameter is out of range, or training diverged.
          TypeError: an argument has the wrong type.
        """
        X, _, labels = self._examples(X, y)
        grid = self._grid([self.lr], [self.reg], [self.hidden])
        hyper = train.Hyper(*np.array([*grid.lr, *grid.reg], X.dtype))
        sizes = X.shape[1], *grid.hidden, len(self.classes_)
        (seed,), (net, optimizer) = grid.seed, self._model()
        batches = sampling.minibatches(seed, range(self.steps), batch_size=self.batch_size, num_examples=len(X))
        with _precision(X), pinned_generator():
            trained = _train(
                net, optimizer, sizes, jax.random.key(np.uint32(seed)), hyper, padded(X), padded(labels), batches
            )
        self.params_, self.loss_curve_ = jax.device_get(trained)
        if not all(np.isfinite(leaf).all() for leaf in (*self.params_, self.loss_curve_)):
            raise ValueError(f"lr must be one at which the loss stays finite, got {self.lr}")
        return self

    def _scores(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        W1, b1, W2, b2 = self.params_  # in numpy: JAX would compile for every new number of examples
        return _fewest_columns(np.maximum(X @ W1 + b1, 0) @ W2 + b2)


@dataclass(eq=False, repr=False, kw_only=True)
class _Search(_Classifier):
    """Selection of the cell with the highest mean accuracy over the folds."""

    cv: Any = None

    def _folds(self, X: MatrixLike, y: NDArray, groups: VectorLike) -> list[tuple[NDArray, NDArray]]:
        """Rows of train and of validation in each fold."""
        return list(check_cv(self.cv, y, classifier=True).split(X, y, groups))

    def _select(self, cells: list[dict[str, Any]], table: NDArray, seconds: NDArray[np.floating]) -> None:
        """Choose the best cell of a sweep.

        Args:
          cells: their hyperparameters.
          table: the rows of the sweep, ``[cells, folds]``.
          seconds: of fitting and of scoring one cell, ``[2, folds]``.
        """
        mean = over_folds(table)
        rank_rows(mean)
        if not mean["rank"].any():
            raise ValueError("lr must hold one at which the loss stays finite in every fold, got none")
        each = {"test_score": table["val_accuracy"], "test_log_loss": table["val_loss"]}
        scores = {f"split{k}_{name}": values[:, k] for k in range(table.shape[1]) for name, values in each.items()}
        for name, times in zip(("fit_time", "score_time"), seconds, strict=True):
            each[name] = np.broadcast_to(times, table.shape)
        scores |= {f"mean_{name}": values.mean(axis=1) for name, values in each.items()}
        scores |= {f"std_{name}": values.std(axis=1) for name, values in each.items()}
        self.cv_results_, self.n_splits_ = cv_results(cells, mean["rank"], scores), table.shape[1]
        best = int(np.argmax(mean["rank"] == 1))
        self.best_index_, self.best_params_, self.best_score_ = best, cells[best], float(mean["val_accuracy"][best])

    def _scores(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        return self.best_estimator_._scores(X)


@dataclass(eq=False, repr=False)
class SoftmaxClassifierCV(_Search, _Logistic):
    """`SoftmaxClassifier` with the regularisation value that is best in cross-validation.

    Held-out examples have weight 0, so that all folds are solved side by side, in one compiled program. Validation
    uses sample weights, not class weights.

    Args:
      reg: the regularisation values; or how many, from 10 to 1e-7 by a constant factor.
      cv: the folds, as in scikit-learn; 5 stratified ones when not given.
      class_weight, tol, max_iter: see `SoftmaxClassifier`.

    Attributes:
      cv_results_, best_index_, best_params_, best_score_, n_splits_: see ``GridSearchCV``, with columns of
        ``test_log_loss`` too. Equal accuracies rank by lower log loss, then by order.
      best_estimator_: the `SoftmaxClassifier` of that value, trained on all examples.
      n_iter_, classes_, n_features_in_, feature_names_in_: see `SoftmaxClassifier`.

    Example:
      >>> from sklearn.datasets import load_digits
      >>> X, y = load_digits(return_X_y=True)
      >>> SoftmaxClassifierCV(reg=[1e-1, 1e-3, 1e-5]).fit(X / 16, y).best_params_
      {'reg': 0.001}
    """

    reg: int | Sequence[float] = 96

    def fit(self, X: MatrixLike, y: VectorLike, sample_weight: VectorLike = None, groups: VectorLike = None) -> Self:
        """Train on ``X: [N, d]`` and ``y: [N]``, see `SoftmaxClassifier.fit`; ``groups: [N]`` are for ``cv``."""
        given, (X, y, labels) = X, self._examples(X, y)
        sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if isinstance(self.reg, Integral) and self.reg < 1:
            raise ValueError(f"reg must be at least 1 value, got {self.reg}")
        reg = np.logspace(1, -7, self.reg) if isinstance(self.reg, Integral) else np.asarray(self.reg)

        folds = self._folds(X, y, groups)
        began, weights = time.perf_counter(), np.zeros((len(y), len(folds)))
        for k, (rows, held_out) in enumerate(folds):
            if not sample_weight[held_out].any():
                raise ValueError("sample_weight must be above 0 for an example of every fold, got one without")
            weights[rows, k] = self._weights(y[rows], sample_weight[rows])
        optimum, trained = self._path(X, labels, reg, weights), time.perf_counter()
        table = np.zeros((len(reg), len(folds)), [("val_accuracy", "f8"), ("val_loss", "f8"), ("rank", "i8")])
        for k, (_, held_out) in enumerate(folds):
            X_val, val, W = X[held_out], (labels[held_out], sample_weight[held_out]), optimum.W[..., k]
            scores = [_score(X_val @ W[:-1, :, cell] + W[-1, :, cell], *val) for cell in range(len(reg))]
            table["val_accuracy"][:, k], table["val_loss"][:, k] = np.transpose(scores)
        spent = np.array([trained - began, time.perf_counter() - trained]) / table.size
        seconds = np.broadcast_to(spent[:, None], (2, len(folds)))
        self._select([{"reg": float(value)} for value in reg], table, seconds)
        best = SoftmaxClassifier(**self.best_params_, **_common(self, _Logistic))
        best._examples(given, y)
        whole = self._path(X, labels, [reg[self.best_index_]], self._weights(y, sample_weight))
        self.best_estimator_ = best._become(whole, 0)
        self.n_iter_ = best.n_iter_
        return self


@dataclass(eq=False, repr=False)
class TwoLayerClassifierCV(_Search, _Trained):
    """`TwoLayerClassifier` with the hidden size, learning rate and reg that are best in cross-validation.

    Args:
      hidden, lr, reg: the grid, in the order of `jaxcls.grid.Grid`.
      cv: the folds, as in scikit-learn; 5 stratified ones when not given.
      steps, batch_size, optimizer, init_scale, random_state: see `TwoLayerClassifier`.

    Attributes:
      cv_results_, best_index_, best_params_, best_score_, n_splits_: see `SoftmaxClassifierCV`; the scores of a cell
        that diverged are NaN.
      best_estimator_: the `TwoLayerClassifier` of that cell, trained on all examples.
      classes_, n_features_in_, feature_names_in_: see `TwoLayerClassifier`.

    Example:
      >>> from sklearn.datasets import load_digits
      >>> X, y = load_digits(return_X_y=True)
      >>> model = TwoLayerClassifierCV(lr=[1e-5, 3e-3], reg=[1e-4], cv=2, steps=100, random_state=0)
      >>> model.fit(X / 16, y).best_params_
      {'hidden': 100, 'lr': 0.003, 'reg': 0.0001}
    """

    hidden: Sequence[int] = (100,)
    lr: Sequence[float] = (1e-3, 3e-3, 1e-2)
    reg: Sequence[float] = (1e-5, 1e-4, 1e-3)

    def fit(self, X: MatrixLike, y: VectorLike, groups: VectorLike = None) -> Self:
        """Train on ``X: [N, d]`` and ``y: [N]``, see `TwoLayerClassifier.fit`; ``groups: [N]`` are for ``cv``."""
        given, (X, y, labels) = X, self._examples(X, y)
        grid, (net, optimizer) = self._grid(self.lr, self.reg, self.hidden), self._model()
        cells = [{name: cell[name] for name in ("hidden", "lr", "reg")} for cell in grid.cells()]
        run = functools.partial(
            sweep.run, steps=self.steps, batch_size=self.batch_size, classifier=net, optimizer=optimizer
        )
        with _precision(X):
            results = _each_fold(run, grid, self._folds(X, y, groups), X, labels, tuple(map(str, self.classes_)))
        table = np.concatenate([result.table.reshape(len(cells), -1) for result in results], axis=1)
        spent, num_fits = total(result.timings for result in results), table.size
        seconds = np.array([spent.compile_s + spent.run_s, spent.evaluate_s]) / num_fits
        self._select(cells, table, np.broadcast_to(seconds[:, None], (2, table.shape[1])))
        best = TwoLayerClassifier(**self.best_params_, **_common(self, _Trained))
        self.best_estimator_ = best.fit(given, y)
        return self


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _train(
    net: Classifier,
    optimizer: Optimizer,
    sizes: tuple[int, int, int],
    key: Array,
    hyper: train.Hyper,
    X: Array,
    y: Array,
    batches: Array,
) -> tuple[two_layer.Params, Array]:
    """Params and losses of one net, trained as in `jaxcls.sweep`; compiled once for each shape of X and batches."""
    state = train.init(optimizer, net.init(*sizes, key=key, dtype=X.dtype), hyper)
    state, losses = train.run(functools.partial(train.step, net, optimizer), state, hyper, X, y, batches)
    return state.params, losses


def _each_fold(
    search: Search,
    grid: Grid,
    folds: Sequence[tuple[NDArray, NDArray]],
    X: NDArray[np.floating],
    labels: NDArray[np.int32],
    class_names: tuple[str, ...],
) -> list[SweepResult]:
    """The result of a search on every fold: one sweep if the folds partition the examples, else one for each.

    A fold is the rows of its train and of its validation examples.
    """
    mean, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])  # features are taken as they are
    parts = [held_out for _, held_out in folds]
    by_part = np.concatenate(parts)
    if np.array_equal(np.sort(by_part), np.arange(len(X))) and all(
        len(rows) + len(out) == len(X) for rows, out in folds
    ):
        # Minibatches are those of `TwoLayerClassifier` on the fold's train, whose rows are in the order of X.
        place = np.argsort(by_part)
        data = Folds(
            train=Split(X[by_part], labels[by_part]),
            parts=tuple(map(len, parts)),
            mean=mean,
            scale=scale,
            fold_mean=np.tile(mean, (len(folds), 1)),
            fold_scale=np.tile(scale, (len(folds), 1)),
            class_names=class_names,
            name="",
            order=tuple(place[rows] for rows, _ in folds),
        )
        return [search(data, replace(grid, fold=range(len(folds))))]
    results = []
    for rows, held_out in folds:
        train, val = (Split(X[each], labels[each]) for each in (rows, held_out))
        results.append(search(Splits(train, val, None, class_names, mean, scale, None, ""), grid))
    return results


def _common(estimator: BaseEstimator, kind: type) -> dict[str, Any]:
    """The parameters that an estimator shares with all of this kind."""
    return {field.name: getattr(estimator, field.name) for field in fields(kind)}


def _precision(X: NDArray[np.floating]) -> AbstractContextManager[None]:
    """A context with the dtype of X as JAX's default float."""
    return jax.enable_x64(X.dtype == np.float64)


def _check_classes(labels: NDArray[np.integer]) -> None:
    if len(classes := np.unique(labels)) < 2:
        raise ValueError(f"y must hold at least two classes with a weight above zero, got {len(classes)} class")


def _fewest_columns(A: NDArray[np.floating]) -> NDArray[np.floating]:
    """One column per class; for two classes, as in scikit-learn, one: the second minus the first."""
    return A[:, 1:] - A[:, :1] if A.shape[1] == 2 else A


def _score(logits: NDArray, labels: NDArray, weights: NDArray) -> tuple[float, float]:
    """Accuracy and log loss."""
    losses = -np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1)[:, 0]
    return np.average(logits.argmax(axis=1) == labels, weights=weights), np.average(losses, weights=weights)
