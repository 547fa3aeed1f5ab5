"""The two-layer net on minibatches, with given hyperparameters or the best of a grid."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Self

import jax
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from jaxcls import optimizers, sampling, sweep, train, two_layer
from jaxcls.classifier import Classifier, two_layer_net
from jaxcls.crossval import Search
from jaxcls.data import Folds, Split, Splits
from jaxcls.estimators.base import (
    Estimator,
    MatrixLike,
    Selection,
    VectorLike,
    check_numbers,
    common,
    fewest_columns,
    precision,
)
from jaxcls.grid import Grid
from jaxcls.numerics import padded, pinned_generator
from jaxcls.optimizers import Optimizer
from jaxcls.result import SweepResult, total


@dataclass(eq=False, repr=False, kw_only=True)
class _Trained(Estimator):
    """Constructor parameters shared by the nets."""

    steps: int = 1000
    batch_size: int = 200
    optimizer: str | Optimizer = "adam"
    init_scale: float = 0.1
    random_state: int | np.random.RandomState | None = None

    def _model(self) -> tuple[Classifier, Optimizer]:
        check_numbers(self, steps=Integral, batch_size=Integral, init_scale=Real)
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
        check_numbers(self, hidden=Integral, lr=Real, reg=Real)
        X, _, labels = self._examples(X, y)
        grid = self._grid([self.lr], [self.reg], [self.hidden])
        hyper = train.Hyper(*np.array([*grid.lr, *grid.reg], X.dtype))
        sizes = X.shape[1], *grid.hidden, len(self.classes_)
        (seed,), (net, optimizer) = grid.seed, self._model()
        batches = sampling.minibatches(seed, range(self.steps), batch_size=self.batch_size, num_examples=len(X))
        with precision(X), pinned_generator():
            trained = _train(
                net, optimizer, sizes, jax.random.key(np.uint32(seed)), hyper, padded(X), padded(labels), batches
            )
        self.params_, self.loss_curve_ = jax.device_get(trained)
        if not all(np.isfinite(leaf).all() for leaf in (*self.params_, self.loss_curve_)):
            raise ValueError(f"lr must be one at which the loss stays finite, got {self.lr}")
        return self

    def _scores(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        W1, b1, W2, b2 = self.params_  # in numpy: JAX would compile for every new number of examples
        return fewest_columns(np.maximum(X @ W1 + b1, 0) @ W2 + b2)


@dataclass(eq=False, repr=False)
class TwoLayerClassifierCV(Selection, _Trained):
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
        for name in ("hidden", "lr", "reg"):
            values = getattr(self, name)
            if not isinstance(values, Iterable) or not len(tuple(values)):
                raise ValueError(f"{name} must be a sequence of at least one value, got {values!r}")
        given, (X, y, labels) = X, self._examples(X, y)
        grid, (net, optimizer) = self._grid(self.lr, self.reg, self.hidden), self._model()
        cells = [{name: cell[name] for name in ("hidden", "lr", "reg")} for cell in grid.cells()]
        run = functools.partial(
            sweep.run, steps=self.steps, batch_size=self.batch_size, classifier=net, optimizer=optimizer
        )
        with precision(X):
            results = _each_fold(run, grid, self._folds(X, y, groups), X, labels, tuple(map(str, self.classes_)))
        table = np.concatenate([result.table.reshape(len(cells), -1) for result in results], axis=1)
        spent, num_fits = total(result.timings for result in results), table.size
        seconds = np.array([spent.compile_s + spent.run_s, spent.evaluate_s]) / num_fits
        self._select(cells, table, np.broadcast_to(seconds[:, None], (2, table.shape[1])))
        best = TwoLayerClassifier(**self.best_params_, **common(self, _Trained))
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
