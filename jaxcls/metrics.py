"""Metrics of a classifier on a set of examples, with 95 % intervals.

`outcomes` reduces the logits ``s`` to a few numbers per example; the metrics take these, or counts of them. With
``TP_c`` examples of class c rightly predicted, ``P_c`` predicted as c and ``N_c`` labelled c, of N in C classes,

    mean per class     mean over c with N_c > 0 of TP_c / N_c
    F1_c               = 2 TP_c / (P_c + N_c)
    macro F1           mean over c with P_c + N_c > 0 of F1_c
    weighted F1        = Σ_c N_c F1_c / N
    log loss           = (1/N) Σ_i -log softmax(s_i)_{y_i}
    calibration error  = (1/N) Σ_b |Σ_{i in bin b} (1[predicted_i = y_i] - confidence_i)|

Fractions of examples have Wilson intervals, all else percentiles of the metric over resamples of the examples.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer
from numpy.typing import NDArray

from jaxcls.losses import cross_entropy_terms
from jaxcls.numerics import checks

TAILS = (0.025, 0.975)
Z = 1.959963984540054  # quantile 0.975 of the standard normal distribution
Numbers = ArrayLike  # numbers that a caller has counted or computed
Values = float | NDArray[np.floating]
Counts = Int[NDArray, "*#models C"]


class Outcomes(NamedTuple):
    """Predictions of one model for N examples, next to their labels.

    Attributes:
      label: the class, in ``[0, C)``.
      predicted: the class with the highest logit; of equal ones, the lowest class.
      rank: number of classes ahead of the label, by a higher logit, or an equal one and a lower class; 0 if and only
        if the prediction is right.
      confidence: softmax probability of the predicted class.
      loss: cross-entropy in nats.
    """

    label: Int[Array | NDArray, "N"]
    predicted: Int[Array | NDArray, "N"]
    rank: Int[Array | NDArray, "N"]
    confidence: Float[Array | NDArray, "N"]
    loss: Float[Array | NDArray, "N"]


def outcomes(logits: Float[ArrayLike, "N C"], y: Integer[ArrayLike, "N"]) -> Outcomes:
    """Outcomes from logits; finite for any finite logits, as `jaxcls.losses.cross_entropy` is.

    Args:
      logits: unnormalised log-probabilities, ``[N, C]``.
      y: integer class labels in ``[0, C)``, ``[N]``.

    Raises:
      ValueError: there is not one label for each example.
      TypeError: the logits are not floating point, or the labels not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> found = outcomes(jnp.array([[0.0, 0.0, 0.0, 0.0], [0.0, 99.0, 0.0, 0.0]]), jnp.array([2, 1]))
      >>> print(found.predicted, found.rank, found.confidence)
      [0 1] [2 0] [0.25 1.  ]
      >>> print(f"{found.loss[0]:.4f}")  # ln 4
      1.3863
    """
    logits = checks.array(logits, "logits")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    y = checks.labels(y, logits.shape[0]).astype(int)
    losses, _, total = cross_entropy_terms(logits.T, y[None])
    return Outcomes(
        label=y,
        predicted=jnp.argmax(logits, axis=1),
        rank=rank(logits, y),
        confidence=1 / total[0],  # the largest term is e^0
        loss=jnp.minimum(losses, jnp.finfo(losses.dtype).max)[0],
    )


def rank(logits: Float[Array, "N C *cells"], y: Integer[Array, "N"]) -> Int[Array, "N *cells"]:
    """Number of classes ahead of the label: by a higher logit, or an equal one and a lower class.

    Example:
      >>> print(rank(jnp.array([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]]), jnp.array([0, 1])))
      [2 1]
    """
    of_cells = range(2, logits.ndim)
    label = jnp.expand_dims(y[:, None], of_cells)
    classes = jnp.expand_dims(jnp.arange(logits.shape[1])[None], of_cells)
    of_label = jnp.take_along_axis(logits, label, axis=1)
    return jnp.sum((logits > of_label) | ((logits == of_label) & (classes < label)), axis=1)


def accuracy(outcomes: Outcomes) -> float:
    """Fraction of the examples that are rightly predicted.

    Example:
      >>> accuracy(outcomes(np.eye(4), np.array([0, 1, 2, 0])))
      0.75
    """
    return float(np.mean(np.equal(outcomes.label, outcomes.predicted)))


def mean_per_class(num_correct: Counts, num_examples: Counts) -> Float[NDArray, "*models"]:
    """Mean of the accuracies on each class that has examples, from counts ``[..., C]``.

    Example:
      >>> print(mean_per_class(np.array([3, 1, 0]), np.array([3, 2, 0])))
      0.75
    """
    return _mean(num_correct / np.maximum(num_examples, 1), num_examples > 0)


def f1(
    num_correct: Counts, num_predicted: Counts, num_examples: Counts, average: Literal["macro", "weighted"] = "macro"
) -> Float[NDArray, "*models"]:
    """Mean of the F1 scores of the classes, from counts ``[..., C]``.

    Args:
      num_correct: examples of each class that are rightly predicted.
      num_predicted: examples predicted as each class.
      num_examples: examples of each class.
      average: ``macro``, over the classes that occur among labels or predictions, or ``weighted`` by ``num_examples``.

    Example:
      >>> print(f"{f1(np.array([2, 1, 0]), np.array([2, 2, 0]), np.array([3, 1, 0])):.4f}")  # (4/5 + 2/3) / 2
      0.7333
    """
    both = num_predicted + num_examples
    weights = {"macro": both > 0, "weighted": num_examples}
    return _mean(2 * num_correct / np.maximum(both, 1), weights[average])


def _mean(values: NDArray, weights: NDArray) -> NDArray[np.floating]:
    return np.asarray(np.sum(values * weights, axis=-1) / np.sum(weights, axis=-1))


def confusion(outcomes: Outcomes, num_classes: int) -> Int[NDArray, "C C"]:
    """Numbers of examples by label, in rows, and prediction, in columns.

    Example:
      >>> print(confusion(outcomes(np.eye(4)[:, :3], np.array([0, 1, 2, 2])), 3))
      [[1 0 0]
       [0 1 0]
       [1 0 1]]
    """
    pairs = np.ravel_multi_index((np.asarray(outcomes.label), np.asarray(outcomes.predicted)), (num_classes,) * 2)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def calibration_error(outcomes: Outcomes, bins: int = 15) -> float:
    """Expected calibration error: mean distance of accuracy from confidence, over bins of confidence of equal width.

    Example:
      >>> calibration_error(outcomes(1e3 * np.eye(4), np.array([0, 1, 2, 0])))  # confident, and a quarter wrong
      0.25

    References:
      Guo et al., `On calibration of modern neural networks <https://arxiv.org/abs/1706.04599>`_, 2017.
    """
    return _calibration_error(_bins(outcomes, bins), _excess(outcomes))


def _calibration_error(bins: Int[NDArray, "N"], excess: Float[NDArray, "N"]) -> float:
    return float(np.sum(np.abs(np.bincount(bins, excess))) / len(excess))


def _bins(outcomes: Outcomes, bins: int = 15) -> Int[NDArray, "N"]:
    """The bin of each example's confidence."""
    return np.searchsorted(np.arange(1, bins) / bins, outcomes.confidence)  # a bin holds its upper edge


def _excess(outcomes: Outcomes) -> Float[NDArray, "N"]:
    """Rightness less confidence of each example."""
    return np.equal(outcomes.label, outcomes.predicted) - np.asarray(outcomes.confidence, float)


def wilson(num_correct: Numbers, num_examples: Numbers) -> tuple[Values, Values]:
    """95 % Wilson score interval of a fraction, lower and upper end; elementwise for arrays.

    Example:
      >>> low, high = wilson(90, 100)
      >>> print(f"{low:.4f} {high:.4f}")
      0.8256 0.9448

    References:
      Wilson, `Probable inference <https://doi.org/10.1080/01621459.1927.10502953>`_, 1927.
    """
    k, n = np.asarray(num_correct, float), np.asarray(num_examples, float)
    centre, half = k + Z**2 / 2, Z * np.sqrt(k * (n - k) / np.maximum(n, 1) + Z**2 / 4)  # no examples: from 0 to 1
    return (centre - half) / (n + Z**2), np.minimum((centre + half) / (n + Z**2), 1)  # rounding may exceed 1


def bootstrap(
    statistic: Callable[[Outcomes], Numbers], outcomes: Outcomes, *, resamples: int = 1000, seed: int = 0
) -> tuple[Values, Values]:
    """95 % percentile interval of a statistic, lower and upper end, under resampling of examples with replacement.

    NaN where the statistic of any resample is NaN. Each entry of an array-valued statistic has its interval.

    Example:
      >>> found = outcomes(np.eye(100), np.arange(100) // 10 * 10)  # 10 of 100 are right
      >>> low, high = bootstrap(accuracy, found)
      >>> print(f"{low:.2f} {high:.2f}")
      0.05 0.17
    """
    host = Outcomes(*map(np.asarray, outcomes))
    draws = _draws(len(host.label), resamples, seed)
    low, high = np.quantile([statistic(Outcomes(*(field[rows] for field in host))) for rows in draws], TAILS, axis=0)
    return low, high


def _draws(count: int, resamples: int = 1000, seed: int = 0) -> Iterator[Int[NDArray, "N"]]:
    """The examples of each resample."""
    rng = np.random.default_rng(seed)
    return (rng.integers(count, size=count) for _ in range(resamples))


class Metric(NamedTuple):
    """Value of a metric, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def measure(outcomes: Outcomes, num_classes: int) -> dict[str, Metric]:
    """Metrics of one model, with Wilson intervals of accuracies and bootstrap intervals of all else.

    Resampling raises a small calibration error, and lowers macro F1 where classes have few examples, so that the value
    may lie near the end of its interval, or outside.

    Returns:
      ``accuracy``, ``top5`` (if there are more than five classes), ``mean_per_class``, ``macro_f1``, ``weighted_f1``,
      ``log_loss`` in nats and ``calibration_error``, in this order.

    Example:
      >>> y = np.arange(200) % 3
      >>> logits = np.eye(3)[y] + np.random.default_rng(0).normal(size=(200, 3))
      >>> for name, (value, low, high) in measure(outcomes(logits, y), 3).items():
      ...     print(f"{name:17} {value:.2f} [{low:.2f}, {high:.2f}]")
      accuracy          0.65 [0.58, 0.71]
      mean_per_class    0.65 [0.59, 0.71]
      macro_f1          0.65 [0.59, 0.71]
      weighted_f1       0.65 [0.59, 0.71]
      log_loss          0.80 [0.72, 0.89]
      calibration_error 0.06 [0.05, 0.14]
    """
    host = Outcomes(*map(np.asarray, outcomes))
    hits = {"accuracy": host.rank == 0} | ({"top5": host.rank < 5} if num_classes > 5 else {})
    of_weights = functools.partial(_averages, host, num_classes, _bins(host), _excess(host))
    averages = of_weights(None)
    resamples = (np.bincount(rows, minlength=len(host.label)) for rows in _draws(len(host.label)))
    ends = np.quantile([[*of_weights(times.astype(float)).values()] for times in resamples], TAILS, axis=0)
    rows = np.transpose([[*averages.values()], *ends]).tolist()
    return {
        **{name: Metric(float(hit.mean()), *map(float, wilson(hit.sum(), len(hit)))) for name, hit in hits.items()},
        **{name: Metric(*row) for name, row in zip(averages, rows, strict=True)},
    }


def values(outcomes: Outcomes, num_classes: int) -> dict[str, float]:
    """The metrics of `measure` without their intervals.

    Example:
      >>> values(outcomes(1e3 * np.eye(4), np.array([0, 1, 2, 0])), 4)["accuracy"]
      0.75
    """
    host = Outcomes(*map(np.asarray, outcomes))
    top5 = {"top5": float(np.mean(host.rank < 5))} if num_classes > 5 else {}
    return {"accuracy": accuracy(host), **top5, **_averages(host, num_classes, _bins(host), _excess(host))}


def _averages(
    outcomes: Outcomes,
    num_classes: int,
    bins: Int[NDArray, "N"],
    excess: Float[NDArray, "N"],
    times: NDArray | None = None,
) -> dict[str, float]:
    """Metrics with bootstrap intervals, of arrays on the host; of each example so many times, or once."""
    label, predicted, *_, loss = outcomes
    times = np.ones(len(label)) if times is None else times
    right = times * (label == predicted)
    num_correct, num_predicted, num_examples = (
        np.bincount(classes, weights, num_classes).astype(int)
        for classes, weights in ((label, right), (predicted, times), (label, times))
    )
    return {
        "mean_per_class": float(mean_per_class(num_correct, num_examples)),
        "macro_f1": float(f1(num_correct, num_predicted, num_examples)),
        "weighted_f1": float(f1(num_correct, num_predicted, num_examples, "weighted")),
        "log_loss": float(loss.astype(float) @ times / len(label)),
        "calibration_error": _calibration_error(bins, times * excess),
    }
