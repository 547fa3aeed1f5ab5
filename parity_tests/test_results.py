"""A run's folder: what is in it, and that it can be used without jaxcls."""

import csv
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import torch

from jaxcls import plots, results, sweep
from jaxcls.data import Splits, load_digits
from jaxcls.grid import Grid


@pytest.fixture(scope="module")
def result(digits: Splits) -> sweep.SweepResult:
    return sweep.run(digits, Grid([0.1, 1.0, 10.0], [0.0, 0.5], [3, 4]), steps=200)


@pytest.fixture(scope="module")
def folder(result: sweep.SweepResult, digits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    results.write(folder, result, digits, {"steps": 200})
    plots.save(folder, result, digits)
    return folder


def test_folder_holds_all_and_nothing_half_written(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors",
        "heatmap.png",
        "loss.png",
        "results.csv",
        "run.json",
        "weights.png",
    ]


def test_csv_has_a_row_per_cell_at_full_precision(folder: Path, result: sweep.SweepResult) -> None:
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == results.COLUMNS
    assert len(rows) == 12
    for row, expected in zip(rows, result.table, strict=True):
        assert row["status"] == ("diverged" if expected["diverged_at"] >= 0 else "ok")
        for column in ("lr", "reg", "train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            np.testing.assert_equal(float(row[column]), expected[column])
        assert int(row["rank"]) == expected["rank"]
    assert {row["status"] for row in rows} == {"ok", "diverged"}


def test_json_says_what_was_run_on_what(folder: Path, result: sweep.SweepResult, digits: Splits) -> None:
    record = json.loads((folder / "run.json").read_text())
    assert record["config"] == {"steps": 200}
    assert record["data"]["sha256"] == digits.fingerprint()
    assert record["versions"].keys() == {"python", "jaxcls", "jax", "jaxlib", "numpy", "optax"}
    assert record["timings"].keys() == {"compile_s", "run_s", "evaluate_s", "total_s"}
    assert record["best"]["test_accuracy"] == result.test_accuracy
    assert record["diverged"][0]["step"] == result.table["diverged_at"].max()
    assert record["matmul_precision"] == "highest"


def test_the_same_run_writes_the_same_bytes(
    folder: Path, result: sweep.SweepResult, digits: Splits, tmp_path: Path
) -> None:
    results.write(tmp_path, result, digits, {"steps": 200})
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_safetensors_header_says_which_cell_it_is(folder: Path, result: sweep.SweepResult) -> None:
    with safetensors.safe_open(folder / "best.safetensors", "numpy") as file:
        header = json.loads(file.metadata()["jaxcls"])
        assert set(file.keys()) == {"W", "mean", "scale"}
        np.testing.assert_array_equal(file.get_tensor("W"), result.params)
    assert (header["lr"], header["reg"], header["seed"]) == result.grid.cells()[result.best]
    assert header["classes"] == [str(digit) for digit in range(10)]


@pytest.mark.parametrize(("framework", "tensor"), [("jax", jnp.asarray), ("torch", torch.tensor)])
def test_the_three_printed_lines_predict_as_the_sweep_did(
    framework: str, tensor: object, folder: Path, result: sweep.SweepResult, digits: Splits
) -> None:
    source = load_digits()
    names = {"X": tensor(source.X[source.test].astype(np.float32))}
    lines = results.reload_lines(folder / "best.safetensors", framework)
    assert len(lines.splitlines()) == 3
    with jax.numpy_rank_promotion("allow"):  # as it is for everyone but these tests
        exec(lines, names)
    assert (np.asarray(names["y"]) == digits.test.y).mean() == pytest.approx(result.test_accuracy, abs=1e-9)


def test_a_run_s_folder_must_be_empty(tmp_path: Path) -> None:
    (tmp_path / "results.csv").touch()
    with (
        pytest.raises(FileExistsError, match=r"must be empty to take a run, it holds results.csv"),
        results.claim(tmp_path),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("place", ["/proc/run", "file/run", "file"])
def test_a_folder_that_cannot_be_written_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(OSError, match="cannot be written as a run's folder: "), results.claim(place):
        pass
    assert os.listdir() == ["file"]


def test_a_run_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with results.claim(tmp_path / "a" / "run"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    def fail() -> None:
        with results.replacing(tmp_path / "results.csv") as partial:
            partial.write_text("lr,reg")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_all_diverged_writes_the_table_and_no_model(digits: Splits, tmp_path: Path) -> None:
    nothing = sweep.run(digits, Grid([1e30], [1.0]), steps=5)
    paths = results.write(tmp_path, nothing, digits, {}) + plots.save(tmp_path, nothing, digits)
    assert [path.name for path in paths] == ["results.csv", "run.json", "heatmap.png", "loss.png"]
    assert json.loads((tmp_path / "run.json").read_text())["best"] is None


def test_heat_map_shows_the_grid_s_own_numbers_sorted_and_outlines_the_best(result: sweep.SweepResult) -> None:
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


def test_features_that_are_no_picture_are_drawn_as_a_matrix() -> None:
    from matplotlib.figure import Figure

    ax = plots.weight_matrix(Figure().subplots(), np.eye(5, 3), ("a", "b", "c"))
    assert ax.images[0].get_array().shape == (3, 5)
