"""Parts that the estimators share: labels of any type, predictions from logits, and selection by cross-validation."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import check_cv
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxcls.crossval import over_folds
from jaxcls.table import cv_results, rank_rows

MatrixLike: TypeAlias = Any  # whatever scikit-learn validates: arrays, lists, data frames
VectorLike: TypeAlias = Any
FLOATS = (np.float64, np.float32)  # what X may be; anything else becomes the first


class Estimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
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
        check_classes(labels)
        return X, y, labels.astype(np.int32)


@dataclass(eq=False, repr=False, kw_only=True)
class Selection(Estimator):
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


def common(estimator: BaseEstimator, kind: type) -> dict[str, Any]:
    """The parameters that an estimator shares with all of this kind."""
    return {field.name: getattr(estimator, field.name) for field in fields(kind)}


def precision(X: NDArray[np.floating]) -> AbstractContextManager[None]:
    """A context with the dtype of X as JAX's default float."""
    return jax.enable_x64(X.dtype == np.float64)


def check_numbers(estimator: BaseEstimator, **kinds: type) -> None:
    """Raise a TypeError unless these parameters are single numbers of these kinds.

    Example:
      >>> from numbers import Real
      >>> from jaxcls.estimators import SoftmaxClassifier
      >>> check_numbers(SoftmaxClassifier(reg=[0.1]), reg=Real)
      Traceback (most recent call last):
      TypeError: reg must be one number, got [0.1]
    """
    for name, kind in kinds.items():
        value = getattr(estimator, name)
        value = value.item() if isinstance(value, np.ndarray | jax.Array) and value.ndim == 0 else value
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{name} must be one {'integer' if kind is Integral else 'number'}, got {value!r}")


def check_classes(labels: NDArray[np.integer]) -> None:
    """Raise unless there are two classes."""
    if len(classes := np.unique(labels)) < 2:
        raise ValueError(f"y must hold at least two classes with a weight above zero, got {len(classes)} class")


def fewest_columns(A: NDArray[np.floating]) -> NDArray[np.floating]:
    """One column per class; for two classes, as in scikit-learn, one: the second minus the first."""
    return A[:, 1:] - A[:, :1] if A.shape[1] == 2 else A
