"""Probes: by solver and by minibatches, class weights, folds, and ``examples/linear_probe.py`` as a user runs it."""

import csv
import functools
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxcls import classifier, crossval, data, probe, softmax, sweep
from jaxcls.artifacts import record
from jaxcls.classifier import linear, two_layer_net
from jaxcls.cli import running
from jaxcls.data import Folds, Source, Splits
from jaxcls.grid import Grid
from jaxcls.table import SCORES, empty_table
from parity_tests.support import command
from parity_tests.support.cases import slow

PROGRAM = Path(__file__).parents[1] / "examples" / "linear_probe.py"
PATH = Grid(lr=(), reg=np.logspace(-1, -6, 11).tolist(), seed=())


@pytest.fixture(scope="module")
def source() -> Source:
    """Rare and frequent classes, features of many scales."""
    shares = [0.6, 0.3, 0.1]
    X, y = make_classification(900, 12, n_informative=6, n_classes=3, weights=shares, class_sep=0.8, random_state=0)
    train, val, test = np.split(np.arange(900), [600, 750])
    return Source("made", X * np.logspace(-2, 2, 12), y, train, val, test, ("0", "1", "2"))


def test_the_best_reg_is_the_one_that_scikit_learn_finds(source: Source) -> None:
    splits = data.standard(source)
    result = probe.run(splits, PATH.reg)
    assert result.table["converged"].all()
    for row in result.table:
        theirs = LogisticRegression(C=1 / (2 * 600 * row["reg"]), tol=1e-8, max_iter=10_000)
        theirs.fit(splits.train.X, splits.train.y)
        for role, split in (("train", splits.train), ("val", splits.val)):
            assert row[f"{role}_accuracy"] == pytest.approx(theirs.score(split.X, split.y), abs=2 / 150)
    best = result.table[result.best]
    assert best["val_accuracy"] == result.table["val_accuracy"].max()
    again = probe.run(splits, PATH.reg).timings
    assert again.compile_s == 0 < again.run_s < again.total_s
    predicted = softmax.predict(result.params, softmax.append_ones(splits.test.X))
    assert result.test_accuracy == np.mean(predicted == splits.test.y)


def test_losses_in_the_table_are_with_penalty_on_train_and_without_on_val(source: Source) -> None:
    splits = data.standard(source)
    result = probe.run(splits, reg=[0.01])
    loss, penalty = jax.jit(softmax.loss), 0.01 * np.sum(result.params[:-1] ** 2)
    for role, split, added in (("train", splits.train, penalty), ("val", splits.val, 0.0)):
        data_loss = loss(result.params, softmax.append_ones(split.X), split.y, 0.0)
        assert result.table[f"{role}_loss"][0] == pytest.approx(float(data_loss) + added)


def test_balanced_weights_are_those_of_scikit_learn_and_help_the_rare_class(source: Source) -> None:
    splits = data.standard(source)
    weights = data.balanced(splits.train.y, 3)
    plain, balanced = (probe.run(splits, PATH.reg, class_weights=each) for each in (None, weights))
    theirs = LogisticRegression(C=1 / (2 * 600 * 1e-3), tol=1e-8, max_iter=10_000, class_weight="balanced")
    theirs.fit(splits.train.X, splits.train.y)
    one = probe.run(splits, reg=[1e-3], class_weights=weights)
    np.testing.assert_allclose(one.params[:-1], theirs.coef_.T, atol=2e-3)
    X, rare = softmax.append_ones(splits.train.X), splits.train.y == 2
    recall = [np.mean(np.asarray(softmax.predict(each.params, X))[rare] == 2) for each in (plain, balanced)]
    assert recall[1] > recall[0]


@pytest.mark.parametrize("by", ["solver", "minibatches"])
def test_cells_are_selected_by_the_mean_over_classes_where_asked(by: str, source: Source) -> None:
    """Of a class that val lacks, no accuracy enters the mean."""
    splits = data.standard(source)
    few = splits.val.y != 1
    splits = replace(splits, val=data.Split(splits.val.X[few], splits.val.y[few]))
    if by == "solver":
        found = probe.run(splits, PATH.reg, select="mean-per-class")
    else:
        grid = Grid(lr=[0.01, 0.1], reg=[0.1, 1e-3, 1e-5])
        found = sweep.run(splits, grid, steps=60, batch_size=50, select="mean-per-class")
    predicted = softmax.predict(found.params, softmax.append_ones(splits.val.X))
    score = recall_score(splits.val.y, predicted, labels=[0, 2], average="macro")
    best, mean = found.table[found.best], found.table["val_mean_per_class"]
    assert best["val_mean_per_class"] == pytest.approx(score, abs=1e-12)
    assert best["val_mean_per_class"] == mean.max()
    assert best["val_loss"] == found.table["val_loss"][mean == mean.max()].min()
    with pytest.raises(
        ValueError, match=r"^select must be one of accuracy, mean-per-class, top-5, macro-f1, log-loss, got recall$"
    ):
        probe.run(splits, PATH.reg, select="recall")


@pytest.mark.parametrize("model", [two_layer_net, *slow(linear)])
def test_class_weights_of_a_classifier_weight_its_loss_and_gradient(model: functools.partial, source: Source) -> None:
    splits, weights = data.standard(source), np.array([0.5, 1.0, 4.0], np.float32)
    weighted, plain = model(init_scale=0.1, class_weights=weights), model(init_scale=0.1)
    X = plain.features(splits.train.X)
    sizes = (X.shape[1], *[8] * plain.num_hidden_layers, 3)
    params = plain.init(*sizes, key=jax.random.key(0), dtype=np.dtype("float32"))
    parts = [splits.train.y == k for k in range(3)]
    loss_and_grad = jax.jit(plain.loss_and_grad)
    by_class = [loss_and_grad(params, X[part], splits.train.y[part], 0.0) for part in parts]
    shares = [weight * part.mean() for weight, part in zip(weights, parts, strict=True)]
    loss, grads = jax.jit(weighted.loss_and_grad)(params, X, splits.train.y, 0.0)
    expected = jax.tree.map(lambda *each: sum(s * e for s, e in zip(shares, each, strict=True)), *by_class)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, expected[1])


def test_class_weights_have_the_precision_of_the_call() -> None:
    third, X, y = np.array([1 / 3, 1.0]), np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    model = linear(class_weights=third)
    with jax.enable_x64(True):
        loss, _ = model.loss_and_grad(np.zeros((2, 2)), X, y, 0.0)
        assert float(loss) == pytest.approx(np.log(2) * np.mean(third), rel=1e-15)


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 1.0, -1.0], [1.0, np.nan, 1.0], [0.0, 0.0, 0.0]])
def test_class_weights_are_one_for_each_class_and_not_below_0(weights: list, source: Source) -> None:
    splits, weights = data.standard(source), np.array(weights)
    sentence = "^class_weights must hold 3 finite values not below 0, one above it, got "
    with pytest.raises(ValueError, match=sentence):
        probe.run(splits, PATH.reg, class_weights=weights)
    for model, hidden in ((linear, []), (two_layer_net, [4])):
        with pytest.raises(ValueError, match=sentence):
            sweep.run(splits, Grid([0.1], [0.0], hidden=hidden), steps=1, classifier=model(class_weights=weights))


def test_a_cell_has_diverged_when_it_first_did_on_a_fold() -> None:
    grid = Grid([0.1, 1.0, 10.0], [0.0], fold=[0, 1, 2])
    table = empty_table(grid)
    table["diverged_at"] = [41, 42, 41, -1, 7, -1, -1, -1, -1]
    found = crossval.over_folds(table.reshape(3, 3))
    assert found["diverged_at"].tolist() == [41, 7, -1]


def test_a_sweep_with_balanced_weights_comes_to_the_optimum_of_the_solver(source: Source) -> None:
    splits = data.standard(source)
    weights = data.balanced(splits.train.y, 3)
    exact = probe.run(splits, reg=[0.01], class_weights=weights)
    swept = sweep.run(
        splits,
        Grid(lr=[0.05], reg=[0.01]),
        steps=3000,
        batch_size=300,
        classifier=classifier.linear(class_weights=weights),
    )
    np.testing.assert_allclose(swept.params[:-1], exact.params[:-1], atol=0.05)
    unweighted = probe.run(splits, reg=[0.01])
    assert np.abs(unweighted.params[:-1] - exact.params[:-1]).max() > 0.1


def test_cross_validation_is_the_search_of_scikit_learn(source: Source) -> None:
    rows = np.concatenate([source.train, source.val])
    of = np.arange(len(rows)) % 3  # folds of one size, compiled once
    folds = data.standard_folds(source, [rows[of == k] for k in range(3)])
    whole = data.standard(replace(source, train=rows, val=rows))
    found = crossval.run(probe.search, PATH, folds, whole)
    size = len(rows) * 2 / 3
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=10_000))
    values = {"logisticregression__C": [1 / (2 * size * reg) for reg in PATH.reg]}
    theirs = GridSearchCV(pipeline, values, cv=PredefinedSplit(of)).fit(source.X[rows], source.y[rows])
    np.testing.assert_allclose(
        found.result.table["val_accuracy"], theirs.cv_results_["mean_test_score"], atol=2 / len(rows)
    )
    alone = probe.run(whole, reg=[PATH.reg[found.result.best]])
    np.testing.assert_array_equal(found.result.params, alone.params)
    assert found.result.test_accuracy == alone.test_accuracy
    assert found.folds.table["converged"].all()
    assert (found.result.table["gradient"] == found.folds.table["gradient"].reshape(-1, 3).max(axis=1)).all()


@pytest.fixture(scope="module")
def folds() -> Folds:
    return data.standard_folds(data.load_digits(), np.split(np.arange(1000), [300, 650]))


@pytest.mark.parametrize(
    ("hidden", "memory", "compared"),
    [
        pytest.param((), None, [2], id="linear"),
        pytest.param((), None, [0, 1], id="linear, other folds", marks=pytest.mark.slow),
        pytest.param((), 1_500_000, [2], id="in blocks", marks=pytest.mark.slow),
        pytest.param((5, 8), None, [2], id="nets", marks=pytest.mark.slow),
    ],
)
def test_folds_on_one_axis_are_what_each_is_alone(
    hidden: tuple[int, ...], memory: int | None, compared: list[int], folds: Folds
) -> None:
    model = two_layer_net(init_scale=0.1) if hidden else linear()
    grid, steps = Grid(lr=[0.05, 0.2, 1e30], reg=[1e-3, 1e-1], seed=[0, 7], hidden=hidden), 60
    found = sweep.run(folds, replace(grid, fold=[0, 1, 2]), steps=steps, classifier=model, memory=memory)
    assert math.isnan(found.test_accuracy)
    for fold in compared:
        alone, rows = sweep.run(folds.split(fold), grid, steps=steps, classifier=model), found.table["fold"] == fold
        np.testing.assert_array_equal(found.table["diverged_at"][rows], alone.table["diverged_at"])
        np.testing.assert_allclose(found.losses[rows], alone.losses, rtol=1e-4)
        for name in SCORES:
            np.testing.assert_allclose(found.table[name][rows], alone.table[name], rtol=1e-4, err_msg=name)


def test_examples_that_are_held_out_are_never_drawn(folds: Folds) -> None:
    """Features of one fold are huge: its own cells are as without them, and all others diverge."""
    spoilt = np.repeat([False, True, False], folds.parts)
    without = functools.partial(sweep.run, grid=Grid(lr=[0.1], reg=[0.0], fold=[0, 1, 2]), steps=30)
    X = folds.train.raw.copy()
    X[folds.train.rows[spoilt]] = 1e38
    found = without(replace(folds, train=replace(folds.train, raw=X)))
    np.testing.assert_array_equal(found.losses[1], without(folds).losses[1])
    assert found.table["diverged_at"][0] >= 0
    assert found.table["diverged_at"][2] >= 0


def test_cross_validation_of_a_sweep_marks_what_diverged(folds: Folds) -> None:
    search, whole = functools.partial(sweep.run, steps=50), folds.split(0)
    found = crossval.run(search, Grid(lr=[0.1, 1e30], reg=[1e-3]), folds, whole)
    assert found.result.table["rank"].tolist() == [1, 0]
    assert found.result.table["diverged_at"][1] >= 0
    assert found.result.losses.shape == (2, 50)
    assert found.result.params is not None
    nothing = crossval.run(search, Grid(lr=[1e29, 1e30], reg=[1e-3]), folds, whole).result
    assert nothing.params is None
    assert np.isnan(nothing.test_accuracy)


def test_ridge_is_exact_to_any_tolerance(digits: Splits) -> None:
    with pytest.raises(ValueError, match=r"^solver must be lbfgs for a tol or certify, as ridge is exact, got ridge$"):
        probe.search(digits, Grid(lr=(), reg=[0.1], seed=()), solver="ridge", certify=True)


def test_a_grid_with_learning_rates_is_refused_by_the_solver(digits: Splits) -> None:
    with pytest.raises(ValueError, match=r"^grid must have the axis reg alone for a solver, got lr, reg, seed$"):
        probe.search(digits, Grid(lr=[0.1], reg=[0.1]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, r"grid.fold must be given for folds alone, each below 3, got \(\)"),
        ({"fold": [3]}, r"grid.fold must be given for folds alone, each below 3, got \(3,\)"),
        ({"fold": [0], "history": True}, "history must be of data that are split once, got folds"),
    ],
)
def test_folds_and_grid_must_fit(options: dict[str, Any], sentence: str, folds: Folds) -> None:
    history = options.pop("history", False)
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        sweep.run(folds, Grid(lr=[0.1], reg=[0.1], **options), steps=1, history=history)


def test_folds_are_of_the_data_of_the_axis(digits: Splits, folds: Folds) -> None:
    with pytest.raises(ValueError, match=r"^grid.fold must be given for folds alone, each below 0, got"):
        sweep.run(digits, Grid(lr=[0.1], reg=[0.1], fold=[0]), steps=1)
    with pytest.raises(ValueError, match=r"^grid.fold must be given for folds alone, each below 3, got"):
        probe.search(folds, Grid(lr=(), reg=[0.1], seed=()))
    with pytest.raises(
        ValueError, match=r"^parts must be two or more, none empty, of 1000 examples in all, got \(1000,\)$"
    ):
        replace(folds, parts=(1000,))
    with pytest.raises(ValueError, match=r"^labels must lie in \[0, 3\), got 3 at row 3 of train$"):
        replace(folds, class_names=("0", "1", "2"))


run = functools.partial(command.run, PROGRAM)


def run_alone(*args: object, cwd: Path) -> subprocess.CompletedProcess:
    """In a process of its own."""
    command = [sys.executable, str(PROGRAM), *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def files(source: Source, tmp_path: Path) -> Path:
    for name in ("train", "val", "test"):
        rows = getattr(source, name)
        np.savez(tmp_path / name, X=source.X[rows], y=source.y[rows])
    np.savez(tmp_path / "ready", **{f"{a}_{r}": getattr(source, a)[getattr(source, r)] for a in "Xy" for r in ROLES})
    return tmp_path


ROLES = ("train", "val", "test")


def test_the_command_does_the_whole_job(files: Path, source: Source) -> None:
    given = ["--train", "train.npz", "--val", "val.npz", "--test", "test.npz"]
    done = run(*given, "--out", "run", cwd=files)
    assert done.returncode == 0, done.stderr
    names = {"results.csv", "run.json", "best.safetensors", "weights.png", "report.html"}
    names |= {"path.png", "confusion.csv", "confusion.png"}
    assert {path.name for path in (files / "run").iterdir()} == names
    assert "96 of 96 converged" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    record = json.loads((files / "run" / "run.json").read_text())
    assert record["command"].split()[2:] == given  # without the folder, which is taken now
    assert record["config"].keys().isdisjoint({"lr", "steps", "batch_size"})  # a solver has none
    assert "<title>Probe of " in (files / "run" / "report.html").read_text()
    exact = probe.run(data.standard(source))
    assert record["best"]["test_accuracy"] == pytest.approx(exact.test_accuracy)
    again = run("--train", "ready.npz", "--out", "again", cwd=files)
    assert again.returncode == 0, again.stderr
    assert (files / "again" / "results.csv").read_bytes() == (files / "run" / "results.csv").read_bytes()


@pytest.mark.parametrize("folds", [2, *slow(0)])
def test_a_probe_with_minibatches_is_resumed_to_the_same_bytes(
    folds: int, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--train", "train.npz", "--solver", "sgd", "--lr", 0.1, "--reg", 1e-3, 1e-2, "--steps", 250]
    options += ["--select", "macro-f1"]
    options += ["--folds", folds] if folds else []
    assert run(*options, "--out", "whole", cwd=files).returncode == 0

    def stop(_: running.Progress, row: sweep.Figures) -> None:
        if row["step"] == 100:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(running.Progress, "__call__", stop)
        stopped = run(*options, "--out", "part", cwd=files)
    assert stopped.returncode == 130
    assert stopped.stdout.endswith(
        f"by SIGINT after 200 of 250 steps; to resume:\n          python {PROGRAM} --resume part\n"
    )
    other = run("--resume", "part", "--batch-size", 7, cwd=files)
    assert other.stderr == "error: part cannot be resumed as another run: batch_size was 200, is 7\n"
    assert run("--resume", "part", cwd=files).returncode == 0
    for name in ("results.csv", "best.safetensors"):
        assert (files / "part" / name).read_bytes() == (files / "whole" / name).read_bytes()
    assert run("--resume", "part", cwd=files).stderr.endswith("a run that is finished: there is nothing to resume\n")


def test_labels_that_are_text_are_the_same_in_every_file(files: Path) -> None:
    for name in ("train", "val", "test"):
        held = dict(np.load(files / f"{name}.npz"))
        kept = held["y"] != 0 if name == "test" else slice(None)  # it lacks a class, and has the others' names
        np.savez(files / f"{name}-number", X=held["X"][kept], y=held["y"][kept])
        text = np.array(["ant", "bee", "cat"])[held["y"][kept]]
        np.savez(files / f"{name}-text", X=held["X"][kept], y=text)
        np.save(files / f"{name}.npy", held["X"][kept])
        (files / f"{name}.txt").write_text("\n".join(text))
    np.savez(files / "other", X=held["X"], y=np.full(len(held["X"]), "eel"))
    of_kind = {kind: [arg for r in ROLES for arg in (f"--{r}", f"{r}-{kind}.npz")] for kind in ("number", "text")}
    of_kind["apart"] = [arg for r in ROLES for arg in (f"--{r}", f"{r}.npy", f"--{r}-labels", f"{r}.txt")]
    for kind, given in of_kind.items():
        done = run(*given, "--reg", 1e-2, 1e-3, "--out", kind, cwd=files)
        assert done.returncode == 0, done.stderr
    number, text, apart = (record.read(files / kind) for kind in of_kind)
    np.testing.assert_array_equal(number.table, text.table)
    np.testing.assert_array_equal(apart.table, text.table)
    assert number.record["best"] == text.record["best"]
    assert {**apart.record["data"], "name": ""} == {**text.record["data"], "name": ""}
    assert text.record["data"]["classes"] == ["ant", "bee", "cat"]
    done = run("--train", "train-text.npz", "--test", "other.npz", cwd=files)
    assert done.stderr == "error: other.npz has classes that train-text.npz has not: eel\n"


@pytest.mark.parametrize("solver", ["adam", *slow("lbfgs")])
def test_folds_class_weights_and_splits_of_its_own(solver: str, files: Path) -> None:
    options = ["--folds", 3, "--class-weight", "balanced", "--reg", 1e-2, 1e-4, "--solver", solver]
    options += ["--steps", 100] if solver != "lbfgs" else []
    done = run("--train", "train.npz", *options, "--out", "run", cwd=files)
    assert done.returncode == 0, done.stderr
    assert "510 train, 90 test examples" in done.stdout
    assert "on the mean of 3 folds, mean over classes" in done.stdout
    with (files / "run" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    (best,) = (row for row in rows if row["rank"] == "1")
    assert float(best["val_mean_per_class"]) == max(float(row["val_mean_per_class"]) for row in rows)
    page = (files / "run" / "report.html").read_text()
    assert "Chosen by highest validation accuracy, mean over classes;" in page
    assert "<title>Probe of " in page
    assert len(rows) == (2 if solver == "lbfgs" else 6)


def test_after_folds_the_best_cell_is_saved_as_it_was_trained(files: Path, source: Source) -> None:
    options = ["--folds", 3, "--reg", 0.1, 0.01, 0.001]
    done = run("--train", "train.npz", "--test", "test.npz", *options, "--out", "run", cwd=files)
    assert done.returncode == 0, done.stderr
    found = record.read(files / "run")
    np.testing.assert_allclose(found.best["mean"], source.X[source.train].mean(axis=0), rtol=1e-4, atol=1e-5)
    prepared = (source.X[source.test] - found.best["mean"]) / found.best["scale"]
    predicted = (prepared @ found.best["W"][:-1] + found.best["W"][-1]).argmax(axis=1)
    assert np.mean(predicted == source.y[source.test]) == found.record["best"]["test_accuracy"]


MISTAKES = {
    "no file": (["--train", "none.npz"], "error: none.npz: no such file, expected an .npz with X and y"),
    "lr of a solver": (
        ["--train", "train.npz", "--lr", 0.1],
        "error: --lr is for minibatches: add --solver sgd, momentum, nesterov, adam, adamw or rmsprop",
    ),
    "steps of a solver": (
        ["--train", "train.npz", "--steps", 100],
        "error: --steps is for minibatches: add --solver sgd, momentum, nesterov, adam, adamw or rmsprop",
    ),
    "a proof of minibatches": (
        ["--train", "train.npz", "--solver", "adam", "--certify"],
        "error: --certify is for --solver lbfgs, got adam",
    ),
    "ready splits and a test": (
        ["--train", "ready.npz", "--test", "test.npz"],
        "error: ready.npz is split by itself: give it alone, as --train",
    ),
    "seed -1": (["--train", "train.npz", "--seed", -1], "error: --seed must lie in [0, 2**32), got -1"),
    "reg 0": (
        ["--train", "train.npz", "--reg", 0],
        "error: --reg must be above 0 for --solver lbfgs, got 0",
    ),
    "more folds than examples": (
        ["--train", "train.npz", "--test", "test.npz", "--folds", 500],
        "error: --folds must be at most 361, the examples of the largest class, got 500",
    ),
    "one fold": (["--train", "train.npz", "--folds", 1], "error: --folds must be at least 2, got 1"),
    "labels of nothing": (
        ["--train", "train.npz", "--test-labels", "test.txt"],
        "error: --test-labels are those of --test: give that, too",
    ),
    "val and folds": (
        ["--train", "train.npz", "--val", "val.npz", "--folds", 3],
        "error: --val and --folds are two ways to choose: give one of them",
    ),
    "other features": (
        ["--train", "train.npz", "--test", "narrow.npz"],
        "error: narrow.npz must have the 12 features of train.npz, got 11",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_and_exit_code_2(mistake: str, files: Path, source: Source) -> None:
    np.savez(files / "narrow", X=source.X[:, 1:], y=source.y)
    args, sentence = MISTAKES[mistake]
    done = (run_alone if mistake == "no file" else run)(*args, cwd=files)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert not (files / "runs").exists()


def test_a_published_protocol_gives_what_scikit_learn_does(source: Source, tmp_path: Path) -> None:
    """Raw features, the value chosen on a tenth of train, refitted with it on all of train, tested once."""
    for name, rows in (("train", np.r_[source.train, source.val]), ("test", source.test)):
        np.savez(tmp_path / name, X=source.X[rows].astype(np.float64), y=source.y[rows])
    C = [1e-4, 1e-3, 1e-2]
    files = "--train", "train.npz", "--test", "test.npz"
    done = run(*files, "--protocol", "dinov2-logreg", "--certify", "--out", "r", "--C", *C, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    held, _ = data.hold_out(np.load(tmp_path / "train.npz")["y"], ("val",), fraction=0.1)
    X, y = (np.load(tmp_path / "train.npz")[name] for name in ("X", "y"))
    X_test, y_test = (np.load(tmp_path / "test.npz")[name] for name in ("X", "y"))
    each = [LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(X[held["train"]], y[held["train"]]) for c in C]
    best = C[int(np.argmax([model.score(X[held["val"]], y[held["val"]]) for model in each]))]
    theirs = LogisticRegression(C=best, tol=1e-8, max_iter=10_000).fit(X, y)
    ours = record.read(tmp_path / "r")
    assert f"(C {best:g}): " in done.stdout
    assert f"refit     on the {len(y):,} of train and val" in done.stdout
    assert ours.record["best"]["test_accuracy"] == pytest.approx(theirs.score(X_test, y_test), abs=1e-12)
    np.testing.assert_allclose(ours.best["W"][:-1].T, theirs.coef_, atol=1e-4)
    assert not ours.best["mean"].any()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--protocol clip --reg 0.1 --C 1", "error: --reg and --C are two ways to name the penalty: give one of them"),
        ("--C -1", "error: --C must be above 0, got -1"),
        (
            "--folds 3 --hold-out 0.2",
            "error: --hold-out is the share of a val that is held out of train: leave out --val and --folds",
        ),
        ("--hold-out 0.9", "error: --hold-out must lie between 0 and 0.8, got 0.9"),
    ],
)
def test_flags_of_protocols_that_do_not_fit_are_refused(flags: str, sentence: str, files: Path) -> None:
    done = run("--train", "train.npz", *flags.split(), cwd=files)
    assert (done.returncode, done.stderr.strip()) == (2, sentence)
