"""A run's folder: its files, and their use without jaxcls."""

import ast
import csv
import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import torch

import torchref
from jaxcls import data, softmax, sweep
from jaxcls.artifacts import plots, record, report, weights
from jaxcls.artifacts.folder import claim, replacing
from jaxcls.classifier import Classifier, two_layer_net
from jaxcls.data import Splits, load_digits
from jaxcls.grid import Grid
from jaxcls.result import SweepResult
from jaxcls.table import SCORES


@pytest.fixture(scope="module")
def result(digits: Splits) -> SweepResult:
    return sweep.run(digits, Grid([0.1, 1.0, 10.0], [0.0, 0.5], [3, 4]), steps=200)


@pytest.fixture(scope="module")
def folder(result: SweepResult, digits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    record.write(folder, result, digits, {"config": {"steps": 200}})
    plots.save(folder, result, digits)
    return folder


@pytest.fixture(scope="module")
def net(digits: Splits) -> SweepResult:
    grid = Grid([0.1, 1.0, 100.0], [1e-3], [3, 4], [7, 20])
    return sweep.run(digits, grid, steps=200, classifier=two_layer_net(init_scale=0.1), history=True)


@pytest.fixture(scope="module")
def net_folder(net: SweepResult, digits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    record.write(folder, net, digits, {})
    plots.save(folder, net, digits)
    return folder


FIXTURES = {"linear": ("result", "folder"), "net": ("net", "net_folder")}


def test_folder_holds_all_and_nothing_half_written(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors",
        "confusion.csv",
        "confusion.png",
        "heatmap.png",
        "loss.png",
        "path.png",
        "results.csv",
        "run.json",
        "weights.png",
    ]


def test_csv_has_a_row_per_cell_at_full_precision(folder: Path, result: SweepResult) -> None:
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["lr", "reg", "seed", *SCORES, "rank", "one_se", "status"]
    assert len(rows) == 12
    for row, expected in zip(rows, result.table, strict=True):
        assert row["status"] == ("diverged" if expected["diverged_at"] >= 0 else "ok")
        for column in ("lr", "reg", "train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            np.testing.assert_equal(float(row[column]), expected[column])
        assert int(row["rank"]) == expected["rank"]
    assert {row["status"] for row in rows} == {"ok", "diverged"}


def test_json_says_what_was_run_on_what(folder: Path, result: SweepResult, digits: Splits) -> None:
    record = json.loads((folder / "run.json").read_text())
    assert record["config"] == {"steps": 200}
    assert record["data"]["sha256"] == digits.fingerprint()
    assert record["versions"].keys() == {"python", "jaxcls", "jax", "jaxlib", "numpy", "optax"}
    assert record["timings"].keys() == {"compile_s", "run_s", "evaluate_s", "total_s"}
    assert record["best"]["test_accuracy"] == result.test_accuracy
    assert record["diverged"][0]["step"] == result.table["diverged_at"].max()
    assert record["matmul_precision"] == "highest"
    assert record["files"].keys() == {"results.csv", "best.safetensors", "confusion.csv"}


@pytest.mark.parametrize("model", ["linear", "net"])
def test_what_was_written_is_read_back(model: str, request: pytest.FixtureRequest) -> None:
    result, folder = (request.getfixturevalue(name) for name in FIXTURES[model])
    run = record.read(folder)
    assert run.record["best"]["test_accuracy"] == result.test_accuracy
    for name in (*result.grid.axes, *SCORES, "rank"):
        np.testing.assert_array_equal(run.table[name], result.table[name])
    np.testing.assert_array_equal(run.table["status"] == "diverged", result.table["diverged_at"] >= 0)
    assert (run.history is None) == (result.history is None)
    if run.history is not None:
        np.testing.assert_array_equal(run.history["val_accuracy"], result.history.val_accuracy.reshape(-1))
    params = result.params._asdict() if model == "net" else {"W": result.params}
    for name, tensor in params.items():
        np.testing.assert_array_equal(run.best[name], tensor)


def test_a_file_of_a_run_that_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("run.json", "results.csv", "best.safetensors"):
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        (tmp_path / name).write_bytes((folder / name).read_bytes().replace(b"0.1", b"0.2", 1)[:-1])
        with pytest.raises(ValueError, match=f"{name} is damaged, or not what a run wrote: "):
            record.read(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file, expected what a finished run left"):
            record.read(tmp_path)


def test_the_same_run_writes_the_same_bytes(folder: Path, result: SweepResult, digits: Splits, tmp_path: Path) -> None:
    record.write(tmp_path, result, digits, {"config": {"steps": 200}})
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_history_has_a_row_per_cell_and_epoch(net_folder: Path, net: SweepResult) -> None:
    with (net_folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["lr", "reg", "hidden", "seed", "step", "loss", "train_accuracy", "val_accuracy"]
    along = net.history
    assert along.step.tolist() == list(range(0, 200, 6))  # 1,257 examples, minibatches of 200
    assert len(rows) == len(net.grid) * len(along.step)
    row = rows[net.best * len(along.step) + 5]
    assert float(row["loss"]) == net.losses[net.best, along.step[5]]
    assert float(row["val_accuracy"]) == along.val_accuracy[net.best, 5]


def test_safetensors_header_says_which_cell_it_is(folder: Path, result: SweepResult) -> None:
    with safetensors.safe_open(folder / "best.safetensors", "numpy") as file:
        header = json.loads(file.metadata()["jaxcls"])
        assert set(file.keys()) == {"W", "mean", "scale"}
        np.testing.assert_array_equal(file.get_tensor("W"), result.params)
    assert header.items() >= result.grid.cells()[result.best].items()
    assert header["classes"] == [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("framework", "tensor"), [("numpy", jnp.asarray), ("numpy", np.asarray), ("torch", torch.tensor)]
)
@pytest.mark.parametrize("model", ["linear", "net"])
def test_the_printed_lines_predict_as_the_sweep_did(
    model: str, framework: str, tensor: object, request: pytest.FixtureRequest, digits: Splits
) -> None:
    result, folder = (request.getfixturevalue(name) for name in FIXTURES[model])
    source = load_digits()
    names = {"X": tensor(source.X[source.test].astype(np.float32))}
    lines = record.reload_lines(folder / "best.safetensors", framework, result.params)
    assert len(lines.splitlines()) == {"linear": 4, "net": 5}[model]
    with jax.numpy_rank_promotion("allow"):  # as it is for everyone but these tests
        exec(lines, names)
    assert (np.asarray(names["y"]) == digits.test.y).mean() == pytest.approx(result.test_accuracy, abs=1e-9)


@pytest.mark.parametrize("framework", ["numpy", "torch", "torchref"])
def test_time_stamps_are_predicted_as_they_were_trained(framework: str, tmp_path: Path) -> None:
    y = np.arange(60) % 2
    X = 1.7e9 + 20 * y[:, None] + np.random.default_rng(0).normal(0, 3, (60, 1))
    splits = data.standard(data.from_arrays(X, y))
    result = sweep.run(splits, Grid(lr=[1.0], reg=[0.0]), steps=50)
    record.write(tmp_path, result, splits, {})
    path = tmp_path / "best.safetensors"
    names = {"X": X if framework == "numpy" else torch.tensor(X)}
    lines = "y = torchref.load(path)(X).argmax(1)"
    names |= {"torchref": torchref, "path": path}
    exec(lines if framework == "torchref" else record.reload_lines(path, framework, result.params), names)
    assert (np.asarray(names["y"]) == y).all()


@pytest.mark.parametrize("folder", ['a "quoted" one', "ein schönes"])
def test_the_printed_lines_are_python_whatever_the_name_of_the_folder(folder: str) -> None:
    _, line, *_ = record.reload_lines(Path(folder) / "best.safetensors", "numpy", np.zeros((2, 2))).split("\n")
    assert ast.literal_eval(line.removeprefix("p = load_file(")[:-1]) == f"{folder}/best.safetensors"


class Linear(NamedTuple):
    """A model of somebody's own."""

    W: jax.Array
    b: jax.Array


def test_a_custom_model_is_written_and_reported(digits: Splits, tmp_path: Path) -> None:
    def with_bias(function: Callable) -> Callable:
        return lambda params, *args: function(jnp.concatenate([params.W, params.b[None]]), *args)

    def init(d: int, c: int, *, key: jax.Array, dtype: np.dtype) -> Linear:
        return Linear(softmax.init(d, c, key=key, dtype=dtype), jnp.zeros(c, dtype))

    loss = with_bias(lambda W, X, y, reg: softmax.loss(W, softmax.append_ones(X), y, reg))
    mine = Classifier(
        init,
        with_bias(lambda W, X: softmax.logits(W, softmax.append_ones(X))),
        jax.value_and_grad(loss),
    )
    found = sweep.run(digits, Grid([0.1], [1e-3]), steps=100, classifier=mine)
    assert found.test_accuracy > 0.8
    record.write(tmp_path, found, digits, {})
    assert "weights.png" not in {path.name for path in plots.save(tmp_path, found, digits)}
    assert "load_file" not in report.write(tmp_path).read_text()


def test_a_sweep_over_folds_has_its_pictures(tmp_path: Path) -> None:
    folds = data.standard_folds(data.load_digits(), np.array_split(np.arange(300), 2))
    found = sweep.run(folds, Grid([0.1, 1.0], [0.0, 0.1], fold=[0, 1]), steps=20)
    assert [path.name for path in plots.save(tmp_path, found, data.standard(data.load_digits()))] == [
        "heatmap.png",
        "path.png",
        "loss.png",
        "weights.png",
    ]


def test_the_folder_of_a_run_must_be_empty(tmp_path: Path) -> None:
    (tmp_path / "results.csv").touch()
    with (
        pytest.raises(FileExistsError, match=r"must be empty to take a run, it holds results.csv"),
        claim(tmp_path),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_a_folder_has_one_run_though_another_comes_as_the_first_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, second = filelock.FileLock.release, claim(tmp_path / "run", resume=True)

    def while_it_releases(lock: filelock.FileLock, force: bool = False) -> None:
        patch.undo()
        release(lock, force)
        second.__enter__()

    with monkeypatch.context() as patch, claim(tmp_path / "run") as folder:
        (folder / "something").touch()
        patch.setattr(filelock.FileLock, "release", while_it_releases)
    with pytest.raises(FileExistsError, match="is in use"), claim(folder, resume=True):
        pass
    second.__exit__(None, None, None)


@pytest.mark.parametrize("place", ["/proc/run", "file/run", "file"])
def test_a_folder_that_cannot_be_written_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with (
        pytest.raises(OSError, match=r"cannot be written as a run's folder: |is a file, expected a run's folder"),
        claim(place),
    ):
        pass
    assert os.listdir() == ["file"]


def test_a_run_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with claim(tmp_path / "a" / "run"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "results.csv") as partial:
            partial.write_text("lr,reg")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_all_diverged_writes_the_table_and_no_model(digits: Splits, tmp_path: Path) -> None:
    nothing = sweep.run(digits, Grid([1e30], [1.0]), steps=5)
    paths = record.write(tmp_path, nothing, digits, {}) + plots.save(tmp_path, nothing, digits)
    assert [path.name for path in paths] == ["results.csv", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["best"] is None


def test_heat_map_shows_the_numbers_of_the_grid_sorted_and_outlines_the_best(result: SweepResult) -> None:
    from matplotlib.figure import Figure

    grid = Grid(lr=[1.0, 0.1], reg=[1e-2, 1e-4, 0.0])
    scores = np.array([0.1, 0.2, np.nan, 0.4, 0.5, 0.6])
    ax = plots.heat_map(Figure().subplots(), grid, scores, best=5, label="validation accuracy")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0.1", "1"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "0.0001", "0.01"]
    assert {text.get_text() for text in ax.texts} == {"0.100", "0.200", "0.400", "0.500", "0.600"}
    shown = ax.images[0].get_array()
    np.testing.assert_array_equal(shown.mask, [[False] * 3, [True, False, False]])
    assert ax.patches[-1].get_xy() == (-0.5, -0.5)


def test_heat_map_says_what_is_grey_and_colours_small_differences_alike() -> None:
    from matplotlib.figure import Figure

    grid, accuracies = Grid(lr=[0.1], reg=[0.0, 1e-3, 1e-2]), [0.979, 0.986, np.nan]
    ax = plots.heat_map(Figure().subplots(), grid, np.array(accuracies), label="accuracy")
    assert ax.get_title() == "accuracy\ngrey: diverged"
    assert ax.images[0].norm(0.979) > 0.8
    figure = Figure()
    nothing = plots.heat_map(figure.subplots(), grid, np.full(3, np.nan))
    assert (nothing.get_title(), len(figure.axes)) == ("\ngrey: diverged", 1)  # no colour bar


@pytest.mark.parametrize(("num_classes", "named"), [(60, 60), (100, 50)])
def test_many_classes_keep_their_names(num_classes: int, named: int) -> None:
    from matplotlib.figure import Figure

    names = tuple(f"class {k}" for k in range(num_classes))
    ax = weights.weight_matrix(Figure().subplots(), np.ones((3, num_classes)), names)
    shown = [tick.get_text() for tick in ax.get_yticklabels()]
    assert shown == [*names[:: num_classes // named]]


def test_heat_map_over_any_two_axes_has_the_best_over_the_others() -> None:
    from matplotlib.figure import Figure

    grid = Grid(lr=[0.1, 1.0], reg=[0.0, 1e-3], hidden=[8, 2, 4], seed=[0, 1])
    scores = np.random.default_rng(0).random(24)
    scores[:12:2] = np.nan  # seed 0 at the lower learning rate
    axes = {name: k for k, name in enumerate(grid.axes)}
    cube = np.nan_to_num(scores.reshape(2, 2, 3, 2))[:, :, [1, 2, 0]]  # hidden sizes rise
    for pair in itertools.permutations(axes, 2):
        best = int(np.nanargmax(scores))
        ax = plots.heat_map(Figure().subplots(), grid, scores, axes=pair, best=best)
        expected = np.zeros([cube.shape[axes[name]] for name in pair])
        for place in np.ndindex(*expected.shape):
            where = [slice(None)] * 4
            for name, k in zip(pair, place, strict=True):
                where[axes[name]] = k
            expected[place] = cube[tuple(where)].max()
        shown = ax.images[0].get_array()
        np.testing.assert_array_equal(shown.filled(0), expected)
        column, row = (round(corner + 0.5) for corner in ax.patches[-1].get_xy())
        assert shown[row, column] == np.nanmax(scores)


def test_history_curves_are_those_of_the_best_cell_at_each_value(net: SweepResult) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 3)
    plots.history_curves(axes, net, "hidden")
    rank = np.where(net.table["rank"] > 0, net.table["rank"], len(net.table) + 1)
    for line, size in zip(axes[2].get_lines(), (7, 20), strict=True):
        rows = np.flatnonzero(net.table["hidden"] == size)
        assert line.get_label() == str(size)
        np.testing.assert_array_equal(line.get_ydata(), net.history.val_accuracy[rows[np.argmin(rank[rows])]])
    axes = Figure().subplots(1, 3)
    plots.history_curves(axes, net, "lr")
    assert [line.get_label() for line in axes[0].get_lines()] == ["0.1", "1", "100, diverged"]
    assert np.isnan(axes[0].get_lines()[2].get_ydata()).all()


@pytest.mark.parametrize(
    "pixels", [np.arange(64).reshape(8, 8), np.arange(48).reshape(4, 4, 3)], ids=["grey", "colour"]
)
def test_hidden_units_are_drawn_in_the_contrast_of_their_own_largest_weight(pixels: np.ndarray) -> None:
    from matplotlib.figure import Figure

    W1 = np.random.default_rng(0).standard_normal((pixels.size, 5)) * [1, 10, 100, 1000, 0]
    canvas = weights.hidden_units(Figure().subplots(), W1, pixels).images[0].get_array()
    height, width = pixels.shape[:2]
    assert canvas.shape[:2] == (2 * height + 1, 3 * width + 2)  # 3 and 2 of them, a line between
    fourth = canvas[height + 1 :, :width]
    np.testing.assert_allclose(fourth, 0.5 + W1[:, 3][pixels] / (2 * np.abs(W1[:, 3]).max()))
    np.testing.assert_array_equal(canvas[height + 1 :, width + 1 : 2 * width + 1], 0.5)  # a unit of zeros is grey


def test_features_that_are_no_picture_are_drawn_as_a_matrix() -> None:
    from matplotlib.figure import Figure

    ax = weights.weight_matrix(Figure().subplots(), np.eye(5, 3), ("a", "b", "c"))
    assert ax.images[0].get_array().shape == (3, 5)


def test_a_class_may_have_any_name(result: SweepResult, digits: Splits, tmp_path: Path) -> None:
    names = ("$x^$", "$\\frac$", *digits.class_names[2:])
    for pixels in (digits.pixels, None):
        plots.save(tmp_path, result, replace(digits, class_names=names, pixels=pixels))
