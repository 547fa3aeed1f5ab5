"""Metrics of a classifier against scikit-learn's, and their intervals against scipy's."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from jaxcls import metrics
from jaxcls.metrics import Metric, Outcomes

JITTED = jax.jit(metrics.outcomes)


def problem(num_examples: int, num_classes: int, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, num_classes, num_examples)
    return (rng.normal(size=(num_examples, num_classes)) + 1.5 * np.eye(num_classes)[y]).astype(dtype), y


def without_labels(logits: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the last class, which is still predicted."""
    return logits, np.where(y == logits.shape[1] - 1, 0, y)


def without_predictions(logits: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the last class, which still has examples."""
    return logits - 9 * np.eye(logits.shape[1], dtype=logits.dtype)[-1:], y


PROBLEMS = {
    "two classes": problem(120, 2),
    "twelve classes": problem(300, 12),
    "a class without labels": without_labels(*problem(120, 4)),
    "a class without predictions": without_predictions(*problem(120, 4)),
    "a class without both": without_predictions(*without_labels(*problem(300, 12))),
    "more classes than examples": problem(8, 20),
    "one example": problem(1, 3),
}
every_problem = pytest.mark.parametrize(("logits", "y"), PROBLEMS.values(), ids=PROBLEMS)


def made_up(label: Any, predicted: Any, confidence: Any = 1.0) -> Outcomes:
    label, predicted = np.asarray(label), np.asarray(predicted)
    floats = np.broadcast_to(np.asarray(confidence, float), label.shape)
    return Outcomes(label, predicted, (label != predicted).astype(int), floats, floats)


def counts(outcomes: Outcomes, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of each class that are correct, predicted and there."""
    table = metrics.confusion(outcomes, num_classes)
    return np.diagonal(table), table.sum(axis=0), table.sum(axis=1)


@every_problem
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
def test_predictions_score_like_in_scikit_learn(logits: np.ndarray, y: np.ndarray) -> None:
    num_classes, predicted, found = logits.shape[1], logits.argmax(axis=1), JITTED(logits, y)
    expected = sklearn.metrics.confusion_matrix(y, predicted, labels=np.arange(num_classes))
    np.testing.assert_array_equal(metrics.confusion(found, num_classes), expected)

    num_correct, num_predicted, num_examples = counts(found, num_classes)
    mean_per_class = metrics.mean_per_class(num_correct, num_examples)
    assert metrics.accuracy(found) == pytest.approx(sklearn.metrics.accuracy_score(y, predicted))
    assert mean_per_class == pytest.approx(sklearn.metrics.balanced_accuracy_score(y, predicted))
    report = sklearn.metrics.classification_report(y, predicted, output_dict=True, zero_division=0)
    for average in ("macro", "weighted"):
        f1 = metrics.f1(num_correct, num_predicted, num_examples, average)
        assert f1 == pytest.approx(sklearn.metrics.f1_score(y, predicted, average=average, zero_division=0))
        assert f1 == pytest.approx(report[f"{average} avg"]["f1-score"])


@pytest.mark.parametrize("name", ["two classes", "twelve classes", "a class without both"])
def test_measure_has_the_metrics_of_scikit_learn(name: str) -> None:
    logits, y = PROBLEMS[name]
    predicted, classes = logits.argmax(axis=1), np.arange(logits.shape[1])
    proba = scipy.special.softmax(logits.astype(float), axis=1)
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(y, predicted),
        "mean_per_class": sklearn.metrics.balanced_accuracy_score(y, predicted),
        "macro_f1": sklearn.metrics.f1_score(y, predicted, average="macro"),
        "weighted_f1": sklearn.metrics.f1_score(y, predicted, average="weighted"),
        "log_loss": sklearn.metrics.log_loss(y, proba, labels=classes),
    }
    if len(classes) > 5:
        expected["top5"] = sklearn.metrics.top_k_accuracy_score(y, logits, k=5, labels=classes)
    found = {name: metric.value for name, metric in metrics.measure(JITTED(logits, y), len(classes)).items()}
    assert 0 < found.pop("calibration_error") < 1
    assert found == pytest.approx(expected, abs=1e-6)


def test_outcomes_equal_those_of_scipy_and_a_sort(dtype: np.dtype) -> None:
    logits, y = problem(300, 12, dtype)
    found = JITTED(logits, y)
    log_proba = scipy.special.log_softmax(logits.astype(float), axis=1)
    np.testing.assert_array_equal(found.label, y)
    np.testing.assert_array_equal(found.predicted, log_proba.argmax(axis=1))
    np.testing.assert_array_equal(found.rank, np.argsort(np.argsort(-logits, axis=1), axis=1)[np.arange(300), y])
    assert found.confidence.dtype == found.loss.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(found.confidence, np.exp(log_proba.max(axis=1)), rtol=tolerance)
    np.testing.assert_allclose(found.loss, -log_proba[np.arange(300), y], rtol=tolerance)


def test_ties_go_to_the_lowest_class() -> None:
    found = JITTED(np.zeros((5, 5), np.float32), np.arange(5))
    np.testing.assert_array_equal(found.predicted, np.zeros(5))
    np.testing.assert_array_equal(found.rank, np.arange(5))


def test_rank_is_the_place_in_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.integers(0, 4, (500, 9)).astype(np.float32), rng.integers(0, 9, 500)
    found = JITTED(logits, y)
    order = np.argsort(-logits, axis=1, kind="stable")
    np.testing.assert_array_equal(found.rank, np.argmax(order == y[:, None], axis=1))
    np.testing.assert_array_equal(found.rank == 0, found.predicted == y)


@pytest.mark.parametrize("scale", [1e4, 1e30, 3e38])
def test_extreme_logits_give_finite_outcomes(scale: float) -> None:
    logits = np.tile(np.array([[scale, -scale, 0]], np.float32), (3, 1))
    found = JITTED(logits, np.arange(3))
    largest = float(np.finfo(np.float32).max)
    np.testing.assert_allclose(found.loss, [0, min(2 * scale, largest), scale], rtol=1e-6)
    np.testing.assert_array_equal(found.confidence, np.ones(3))
    np.testing.assert_array_equal(found.rank, [0, 2, 1])


def test_extreme_losses_have_finite_metrics() -> None:
    found = JITTED(np.tile(np.array([[3e38, -3e38, 0]], np.float32), (3, 1)), np.arange(3))
    assert all(np.isfinite(metric).all() for metric in metrics.measure(found, 3).values())


def test_a_small_loss_keeps_its_digits() -> None:
    margins = np.array([1, 10, 20, 40, 80], np.float32)
    found = JITTED(np.stack([margins, 0 * margins], axis=1), np.zeros(5, int))
    np.testing.assert_allclose(found.loss, np.log1p(np.exp(-margins.astype(float))), rtol=1e-5)


def test_labels_of_few_bits_have_the_same_outcomes() -> None:
    logits, y = problem(20, 200)
    same = functools.partial(np.testing.assert_array_equal, strict=True)
    jax.tree.map(same, JITTED(logits, (y % 128).astype(np.int8)), JITTED(logits, y % 128))


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("y", "error", "sentence"),
    [
        (np.zeros(3, int), ValueError, r"one label for each of the 2 examples, got shape \[3\]"),
        (np.zeros(2), TypeError, "y must hold integer class labels, got float32"),
    ],
)
def test_static_mistakes_are_one_line_errors(y: np.ndarray, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        JITTED(np.ones((2, 3), np.float32), y)


def test_a_stack_of_models_by_vmap_equals_each_model() -> None:
    logits, y = problem(40, 6)
    stack = np.stack([logits, -logits, logits[::-1]])
    found = jax.jit(jax.vmap(metrics.outcomes, in_axes=(0, None)))(stack, y)
    for i, one in enumerate(stack):
        for of_stack, alone in zip(found, JITTED(one, y), strict=True):
            np.testing.assert_allclose(of_stack[i], alone, rtol=1e-6)


def test_counts_of_a_stack_of_models_give_the_metrics_of_each() -> None:
    rng = np.random.default_rng(0)
    y, predicted = rng.integers(0, 5, 60), rng.integers(0, 6, (2, 3, 60))  # class 5 has no examples
    tables = np.array([[metrics.confusion(made_up(y, one), 6) for one in row] for row in predicted])
    num_correct, num_predicted = np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(axis=-2)
    num_examples = np.bincount(y, minlength=6)  # the same for all models
    scores = {
        "recall": (metrics.mean_per_class(num_correct, num_examples), {"labels": range(5), "average": "macro"}),
        "macro": (metrics.f1(num_correct, num_predicted, num_examples), {"average": "macro"}),
        "weighted": (metrics.f1(num_correct, num_predicted, num_examples, "weighted"), {"average": "weighted"}),
    }
    for name, (found, options) in scores.items():
        score = sklearn.metrics.recall_score if name == "recall" else sklearn.metrics.f1_score
        expected = [[score(y, one, zero_division=0, **options) for one in row] for row in predicted]
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_the_sum_over_bins_of_guo_et_al(bins: int) -> None:
    logits, y = problem(400, 4)
    found = jax.device_get(JITTED(2 * logits, y))
    expected = 0.0
    for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        inside = (found.confidence > low) & (found.confidence <= high)
        if inside.any():
            correct, confidence = (found.predicted == y)[inside].mean(), found.confidence[inside].mean(dtype=float)
            expected += inside.mean() * abs(correct - confidence)
    assert expected > 0.01
    assert metrics.calibration_error(found, bins) == pytest.approx(expected, rel=1e-9)


def test_a_bin_holds_its_upper_edge() -> None:
    right_and_wrong = made_up([0, 0], [0, 1], [0.4, 0.41])  # one bin would hide half of the error
    assert metrics.calibration_error(right_and_wrong, bins=5) == pytest.approx((0.6 + 0.41) / 2)
    assert metrics.calibration_error(made_up([0, 0], [0, 1], [0.39, 0.4]), bins=5) == pytest.approx(0.21 / 2)


def test_the_calibration_error_of_a_calibrated_classifier_is_small() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)).astype(np.float32)
    y = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)  # drawn from the softmax
    assert metrics.calibration_error(JITTED(logits, y)) < 0.02 < metrics.calibration_error(JITTED(3 * logits, y))


@pytest.mark.parametrize("num_examples", [1, 7, 15, 10_000])
def test_wilson_equals_the_interval_of_scipy(num_examples: int) -> None:
    num_correct = np.unique(np.linspace(0, num_examples, 12).astype(int))
    expected = [scipy.stats.binomtest(k, num_examples).proportion_ci(method="wilson") for k in num_correct.tolist()]
    low, high = metrics.wilson(num_correct, num_examples)
    np.testing.assert_allclose(np.transpose([low, high]), expected, rtol=1e-10, atol=1e-15)
    assert np.asarray(low)[0] == 0
    assert np.asarray(high)[-1] == pytest.approx(1, abs=1e-15)
    assert np.max(high) <= 1  # at 15 of 15, rounding would give more
    assert metrics.wilson(int(num_correct[0]), num_examples) == (np.asarray(low)[0], np.asarray(high)[0])


def test_wilson_without_examples_is_0_to_1() -> None:
    assert metrics.wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(
    "statistic", [metrics.accuracy, lambda resample: resample.loss.mean()], ids=["accuracy", "loss"]
)
def test_bootstrap_agrees_with_scipy_within_sampling_error(statistic: Callable[[Outcomes], float]) -> None:
    found = jax.device_get(JITTED(*problem(300, 5)))
    values = (found.rank == 0).astype(float) if statistic is metrics.accuracy else found.loss
    expected = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1))
    # The standard error of quantile 0.025 of 4000 draws is 0.04 standard deviations.
    ends = metrics.bootstrap(statistic, found, resamples=4000)
    np.testing.assert_allclose(ends, expected.confidence_interval, atol=0.2 * expected.standard_error)


def test_an_undefined_statistic_has_an_undefined_interval() -> None:
    found = made_up(np.arange(40) == 0, np.zeros(40))

    def accuracy_on_class_1(resample: Outcomes) -> float:  # about a third of the resamples are without
        of_class = resample.label == 1
        return metrics.accuracy(Outcomes(*(field[of_class] for field in resample))) if of_class.any() else np.nan

    assert np.isnan(metrics.bootstrap(accuracy_on_class_1, found, resamples=100)).all()
    both = metrics.bootstrap(lambda resample: np.array([np.nan, metrics.accuracy(resample)]), found, resamples=100)
    np.testing.assert_array_equal(np.isnan(both), [[True, False], [True, False]])


def test_bootstrap_repeats_with_its_seed() -> None:
    found = made_up(np.arange(100) % 3, np.arange(100) % 4)
    ends = {seed: metrics.bootstrap(metrics.accuracy, found, resamples=50, seed=seed) for seed in range(3)}
    assert ends[0] == metrics.bootstrap(metrics.accuracy, found, resamples=50)
    assert len(set(ends.values())) > 1


def test_measure_is_the_value_and_the_interval_of_each_metric() -> None:
    on_device = JITTED(*problem(150, 6))
    found = jax.device_get(on_device)
    statistics: dict[str, Callable[[Outcomes], Any]] = {
        "mean_per_class": lambda resample: metrics.mean_per_class(*counts(resample, 6)[::2]),
        "macro_f1": lambda resample: metrics.f1(*counts(resample, 6)),
        "weighted_f1": lambda resample: metrics.f1(*counts(resample, 6), "weighted"),
        "log_loss": lambda resample: resample.loss.mean(dtype=float),
        "calibration_error": metrics.calibration_error,
    }
    measured = metrics.measure(found, 6)
    assert list(measured) == ["accuracy", "top5", *statistics]
    assert all(type(value) is float for metric in measured.values() for value in metric)
    for name, statistic in statistics.items():
        expected = Metric(float(statistic(found)), *map(float, metrics.bootstrap(statistic, found)))
        np.testing.assert_allclose(measured[name], expected, rtol=1e-12, err_msg=name)
    for name, k in {"accuracy": 1, "top5": 5}.items():
        num_hits = int((found.rank < k).sum())
        assert measured[name] == (num_hits / 150, *metrics.wilson(num_hits, 150))
    assert measured == metrics.measure(on_device, 6)


def test_a_perfect_classifier_has_perfect_metrics() -> None:
    y = np.arange(60) % 6
    measured = metrics.measure(JITTED(1e3 * np.eye(6)[y], y), 6)
    for name in ("mean_per_class", "macro_f1", "weighted_f1"):
        assert measured[name] == (1, 1, 1)
    for name in ("log_loss", "calibration_error"):
        assert measured[name] == (0, 0, 0)
    assert measured["accuracy"] == measured["top5"] == (1, pytest.approx(0.94, abs=0.01), 1)
