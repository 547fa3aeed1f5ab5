"""The linear classifier at its optimum, for one value of reg or the best of many."""

import functools
import inspect
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_class_weight
from sklearn.utils.validation import _check_sample_weight

from jaxcls import logistic
from jaxcls.estimators.base import (
    Estimator,
    MatrixLike,
    Selection,
    VectorLike,
    check_classes,
    check_numbers,
    common,
    fewest_columns,
    precision,
)

# From 1.7 on, scikit-learn balances classes by the sum of their sample weights; before, by their number of examples.
BALANCES_WEIGHTS = "sample_weight" in inspect.signature(compute_class_weight).parameters


@dataclass(eq=False, repr=False, kw_only=True)
class _Logistic(Estimator):
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
            check_classes(labels[of_fold > 0])
        check_numbers(self, max_iter=Integral)
        if self.tol is not None:
            check_numbers(self, tol=Real)
        if self.max_iter < 1:
            raise ValueError(f"max_iter must be at least 1, got {self.max_iter}")
        path = functools.partial(logistic.path, weights=weights, num_classes=len(self.classes_))
        with precision(X):
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
        check_numbers(self, reg=Real)
        X, y, labels = self._examples(X, y)
        sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        return self._become(self._path(X, labels, [self.reg], self._weights(y, sample_weight)), 0)

    def _become(self, optimum: logistic.Optimum, k: int) -> Self:
        W = fewest_columns(optimum.W[..., k])
        self.coef_, self.intercept_, self.n_iter_ = W[:-1].T, W[-1], int(optimum.iterations[k])
        return self

    def _scores(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        return X @ self.coef_.T + self.intercept_


@dataclass(eq=False, repr=False)
class SoftmaxClassifierCV(Selection, _Logistic):
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
        best = SoftmaxClassifier(**self.best_params_, **common(self, _Logistic))
        best._examples(given, y)
        whole = self._path(X, labels, [reg[self.best_index_]], self._weights(y, sample_weight))
        self.best_estimator_ = best._become(whole, 0)
        self.n_iter_ = best.n_iter_
        return self


def _score(logits: NDArray, labels: NDArray, weights: NDArray) -> tuple[float, float]:
    """Accuracy and log loss."""
    losses = -np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1)[:, 0]
    return np.average(logits.argmax(axis=1) == labels, weights=weights), np.average(losses, weights=weights)
