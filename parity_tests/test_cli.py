"""``python examples/sweep.py`` as a user runs it, and the mistakes a newcomer makes."""

import csv
import functools
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxcls import __version__ as version
from jaxcls.artifacts import record
from jaxcls.cli import console
from parity_tests.support import command

PROGRAM = Path(__file__).parents[1] / "examples" / "sweep.py"


run = functools.partial(command.run, PROGRAM)


def run_alone(*args: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """In a process of its own."""
    command = [sys.executable, str(PROGRAM), *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )


needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")


def test_default_run_does_the_whole_job(tmp_path: Path) -> None:
    done = run_alone(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cell-steps" not in done.stderr  # no bar, since stderr is not a terminal
    (folder,) = (tmp_path / "runs").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "results.csv",
        "run.json",
        "best.safetensors",
        "confusion.csv",
        "heatmap.png",
        "path.png",
        "loss.png",
        "confusion.png",
        "weights.png",
        "report.html",
        "state.safetensors",
    }
    for word in ("compiling", "diverged at step", "<- best", "test      scored once, with 95% intervals", "load_file"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_given_splits_are_those_of_one_file(tmp_path: Path) -> None:
    """Labels by name, in files of their own or not, in any split."""
    rng, names = np.random.default_rng(0), np.array(["cat", "dog", "eel"])
    X, y = rng.standard_normal((90, 4)), np.arange(90) % 3
    parts = {"train": slice(50), "val": slice(50, 70), "test": slice(70, 90)}
    np.savez(
        tmp_path / "all.npz", **{f"{a}_{r}": {"X": X, "y": names[y]}[a][of] for r, of in parts.items() for a in "Xy"}
    )
    np.savez(tmp_path / "train.npz", X=X[parts["train"]], y=names[y[parts["train"]]])
    for role in ("val", "test"):
        np.save(tmp_path / f"{role}.npy", X[parts[role]])
        (tmp_path / f"{role}.txt").write_text("\n".join(names[y[parts[role]]]))
    given = [
        word for role in ("val", "test") for word in (f"--{role}", f"{role}.npy", f"--{role}-labels", f"{role}.txt")
    ]
    options = ["--lr", 0.1, 1, "--reg", 0, "--steps", 20]
    for files in (["--data", "all.npz", "--out", "one"], ["--data", "train.npz", *given, "--out", "several"]):
        done = run(*files, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "50 train, 20 val, 20 test examples" in done.stdout
    for name in ("results.csv", "confusion.csv"):
        assert (tmp_path / "several" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_own_features_own_grid_and_seeds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    np.savez(tmp_path / "mine.npz", X=np.eye(3)[y] + 0.1 * rng.standard_normal((300, 3)), y=y)
    options = ["--lr", 0.1, 1, "--reg", 0, "--seeds", 1, 2, "--steps", 50, "--optimizer", "adam", "--out", "here"]
    done = run("--data", "mine.npz", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "here" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["lr"], row["reg"], row["seed"]) for row in rows] == [
        ("0.1", "0.0", "1"),
        ("0.1", "0.0", "2"),
        ("1.0", "0.0", "1"),
        ("1.0", "0.0", "2"),
    ]
    assert max(float(row["val_accuracy"]) for row in rows) > 0.95
    assert "cells tie at this accuracy: 45 examples cannot tell them\n          apart, so the " in done.stdout
    assert "edge" not in done.stdout


def test_nets_of_several_sizes_with_decay(tmp_path: Path) -> None:
    options = ["--hidden", 4, 16, "--lr", 0.3, 1000, "--reg", 1e-3, "--steps", 301, "--decay", 0.95, "--out", "run"]
    done = run("--model", "two-layer", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "results.csv",
        "history.csv",
        "run.json",
        "best.safetensors",
        "confusion.csv",
        "heatmap.png",
        "path.png",
        "loss.png",
        "confusion.png",
        "history.png",
        "weights.png",
        "report.html",
        "state.safetensors",
    }
    with (tmp_path / "run" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["lr"], row["hidden"], row["status"]) for row in rows] == [
        ("0.3", "4", "ok"),
        ("0.3", "16", "ok"),
        ("1000.0", "4", "diverged"),
        ("1000.0", "16", "diverged"),
    ]
    assert float(rows[1]["val_accuracy"]) > 0.9
    assert "2 lr x 1 reg x 2 hidden x 1 seed = 4 cells" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.slow  # that a run has the bytes of another process's, test_checkpoint.py tests by default
@pytest.mark.parametrize("model", ["linear", "two-layer"])
def test_the_same_command_writes_the_same_bytes(model: str, tmp_path: Path) -> None:
    """In another process, without JAX's compilation cache, and with a cold and a warm one."""
    none, cache = {"JAX_ENABLE_COMPILATION_CACHE": "0"}, {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    written = []
    for out, environment in (("without", none), ("cold", cache), ("warm", cache)):
        options = ["--model", model, "--lr", 0.1, 1, "--steps", 150, "--out", out]
        done = run_alone(*options, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        written.append([(tmp_path / out / name).read_bytes() for name in ("results.csv", "best.safetensors")])
    assert any((tmp_path / "cache").iterdir())
    assert written[1:] == written[:1] * 2


def test_all_devices(tmp_path: Path) -> None:
    options = ["--lr", 0.1, 1, 3, "--reg", 0, "--steps", 50]
    done = run_alone(*options, "--devices", "all", "--out", "all", cwd=tmp_path, JAX_NUM_CPU_DEVICES="2")
    assert done.returncode == 0, done.stderr
    assert run(*options, "--out", "one", cwd=tmp_path).returncode == 0
    one, all_ = (np.genfromtxt(tmp_path / name / "results.csv", delimiter=",", names=True) for name in ("one", "all"))
    np.testing.assert_allclose(all_["val_loss"], one["val_loss"], rtol=1e-4)


def test_every_cell_diverged_exits_1_with_the_table(tmp_path: Path) -> None:
    done = run("--lr", 1e30, "--reg", 1, "--steps", 5, "--out", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "every cell diverged" in done.stdout
    assert (tmp_path / "run" / "results.csv").exists()
    assert not (tmp_path / "run" / "best.safetensors").exists()


MISTAKES = {
    "duplicate lr": (["--lr", 0.1, 0.1], "error: lr must hold each value once, got 0.1 2 times"),
    "negative reg": (["--reg", -1], "error: reg must hold finite values not below 0, got -1.0"),
    "lr not a number": (["--lr", "nan"], "error: lr must hold finite values not below 0, got nan"),
    "memory in words": (["--memory", "lots"], "error: --memory must be a number of bytes, as 4GB or 500MB, got lots"),
    "little memory": (["--memory", "10 kB"], "error: memory must hold the data and at least one cell, "),
    "no lr": (["--lr"], "error: lr must hold at least one value, got ()"),
    "commas": (["--lr", "0.1,1e-2"], "error: numbers must be separated by spaces, 0.1 1e-2, got 0.1,1e-2"),
    "zero steps": (["--steps", 0], "error: --steps must be at least 1, got 0"),
    "empty batches": (["--batch-size", 0], "error: --batch-size must be at least 1, got 0"),
    "no hidden units": (
        ["--model", "two-layer", "--hidden", 0],
        "error: hidden must hold finite values not below 1, got 0",
    ),
    "too many hidden units": (
        ["--model", "two-layer", "--hidden", 10**12],
        "error: hidden must be at most ",
    ),
    "hidden units of the linear model": (["--hidden", 8], "error: --hidden is for nets: add --model two-layer"),
    "range without points": (
        ["--lr", "1e-4:1"],
        "error: --lr 1e-4:1 is a range: say how many points to draw from it, as --samples 64",
    ),
    "points without a range": (["--samples", 8], "error: --samples draws points from ranges: give one, as --lr 1e-4:1"),
    "no points": (["--samples", 0, "--lr", "1e-4:1"], "error: --samples must lie between 1 and 1,000,000, got 0"),
    "range upside down": (
        ["--samples", 8, "--lr", "1:0.1"],
        "error: lr must be a range from a lower to a higher number, got (1.0, 0.1)",
    ),
    "range from zero": (
        ["--samples", 8, "--reg", "0:0.1"],
        "error: reg must be a range of positive numbers, to be drawn by their logarithms, got (0.0, 0.1)",
    ),
    "range among values": (
        ["--samples", 8, "--lr", "0.1:1", "3"],
        "error: --lr must be values or one range, as 1e-4:1, got 0.1:1 3.0",
    ),
    "halving of one cell": (
        ["--halving", "--lr", 1, "--reg", 0],
        "error: halving must have at least two cells, replicates not counted, got 1",
    ),
    "halving with a schedule": (
        ["--halving", "--schedule", "cosine"],
        "error: --halving judges cells before --schedule cosine has lowered their learning rates: leave out",
    ),
    "rungs without halving": (["--rungs", 10], "error: --rungs are those of --halving: add that"),
    "patience without best weights": (["--patience", 2], "error: --patience is for cells that keep their best weights"),
    "rungs beyond the steps": (
        ["--halving", "--rungs", 9000],
        "error: --rungs must ascend between 0 and the 2000 steps",
    ),
    "no seed": (["--seeds"], "error: --seeds must be at least one, got none"),
    "momentum of plain sgd": (
        ["--momentum", 0.9],
        "error: --momentum is for --optimizer momentum or nesterov or rmsprop, g",
    ),
    "decay of plain sgd": (["--weight-decay", 0.1], "error: --weight-decay is for --optimizer adamw, got sgd"),
    "names of digits": (["--names", "a", "b"], "error: --names are those of a file: give that as --data, got digits"),
    "val of digits": (["--val", "features.npz"], "error: --val is beside a file: give that as --data, got digits"),
    "labels of no test": (
        ["--data", "features.npz", "--test-labels", "y.txt"],
        "error: --test-labels are those of --test: give that, too",
    ),
    "val that is train": (
        ["--data", "features.npz", "--val", "./features.npz"],
        "error: --data, --val and --test must be different files",
    ),
    "flips of features": (
        ["--data", "features.npz", "--flip"],
        "error: features.npz: mirrored must be given pictures, as cifar10 and digits are, got features without pixels",
    ),
    "decay that grows": (["--decay", 1.5], "error: decay must lie in (0, 1], got 1.5"),
    "one of several": (["--decay", 0.9, 1.5], "error: decay must hold values of at most 1, got 1.5"),
    "decays and a schedule": (
        ["--decay", 0.9, 1, "--schedule", "cosine"],
        "error: --decay and --schedule are two ways to change the learning rate: give one of them",
    ),
    "no such data": (["--data", "mnist"], "error: --data must be digits, cifar10 or the path of files, got mnist"),
    "folder of CIFAR-10": (["--data", "cifar"], "error: --data must be cifar10 for a folder that holds it"),
    "no such file": (["--data", "a.npz"], "error: a.npz: no such file, expected an .npz with X and y"),
    "no CIFAR-10": (["--preset", "cs231n", "--data-dir", "."], "error: . holds no CIFAR-10, expected data_batch_1"),
    "protocol of other data": (["--protocol", "cs231n"], "error: protocol cs231n prepares cifar10 only, got digits"),
    "folder in use": (["--out", "."], "error: . must be empty to take a run, it holds "),
    "folder is a file": (["--out", "used"], "error: used is a file, expected a run's folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_and_exit_code_2(mistake: str, tmp_path: Path) -> None:
    args, sentence = MISTAKES[mistake]
    (tmp_path / "used").touch()
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "data_batch_1").touch()
    np.savez(tmp_path / "features.npz", X=np.eye(30), y=np.arange(30) % 2)
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cifar", "data_batch_1", "features.npz", "used"]


def test_random_points_are_halved_and_the_run_says_so(tmp_path: Path) -> None:
    nets = ["--model", "two-layer", "--hidden", "4:32", "--samples", 9, "--lr", "1e-2:1", "--reg", "1e-5:1e-2"]
    halving = ["--halving", "--rungs", 20, 60, "--ema", 0.9, "--steps", 100, "--out", "run"]
    done = run(*nets, *halving, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        "9 points of lr, reg, hidden x 1 seed = 9 cells",
        "halving   the best third stays after 20, 60 steps",
        "  to step 20\n",
        "  to step 60\n",
        "points.png",
    ):
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    read = record.read(tmp_path / "run")
    assert read.record["cells_are"] == "points"
    assert [stage["cells"] for stage in read.record["stages"]] == [9, 3, 1]
    assert sorted(read.table["status"]) == ["ok", *["stopped"] * 8]
    assert sorted(read.table["stopped_at"]) == [-1, *[20] * 6, *[60] * 2]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "stopped at step 20" in page
    assert "9 points of lr, reg, hidden × 1 seed = 9 cells" in page
    again = shlex.split(read.record["command"])
    assert "--samples" in again
    assert "--halving" in again


def test_the_simplest_cell_of_a_halved_run_is_trained_alone(tmp_path: Path) -> None:
    done = run("--halving", "--choose", "one-se", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the simplest of them was chosen" in done.stdout


def test_a_finished_run_is_extended_and_refined(tmp_path: Path) -> None:
    grid = ["--lr", 0.1, 1, "--reg", 0, 0.01, 0.1]
    first = run(*grid, "--steps", 60, "--halving", "--rungs", 20, "--out", "first", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    done = run("--extend", "first", "--steps", 120, "--out", "longer", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "extends   first, to 120 steps" in done.stdout
    whole = run(*grid, "--steps", 120, "--halving", "--rungs", 20, "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    for name in ("results.csv", "best.safetensors"):
        assert (tmp_path / "longer" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    done = run("--refine", "longer", "--out", "both", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "refines   longer, around its best cell" in done.stdout
    one, other = (record.read(tmp_path / name) for name in ("longer", "both"))
    assert len(other.table) > len(one.table)
    assert next(stage["cells"] for stage in other.record["stages"]) == len(other.table)
    assert "extend" not in other.record["command"]
    assert "--refine longer" in other.record["command"]
    assert (tmp_path / "both" / "points.png").exists()

    np.savez(tmp_path / "mine.npz", X=np.eye(40), y=np.arange(40) % 2)
    run("--data", "mine.npz", "--steps", 20, *grid, "--schedule", "cosine", "--out", "mine", cwd=tmp_path)
    for args, message in (
        (
            ["--extend", "first", "--steps", 60],
            "steps must be more than the 60 that cells were trained for, got 60",
        ),
        (["--extend", "first", "--data", "mine.npz", "--steps", 90], "a finished run can be continued on its own data"),
        (
            ["--refine", "first", "--optimizer", "adam"],
            "a finished run can be continued with its own flags alone: optimizer was 'sgd', is 'adam'",
        ),
        (["--extend", "mine", "--steps", 60], "mine cannot be extended: its --schedule cosine ended the training"),
        (["--extend", "first", "--lr", 5, "--steps", 90], "--lr names cells, and those are of first: leave it out"),
        (["--refine", "first", "--steps", 5], "--steps must be the 60 of first, whose cells stay, got 5"),
        (["--refine", "none"], "none holds no state.safetensors of a finished run, which is kept up to 128 MB"),
        (["--refine", "first", "--extend", "first"], "--extend and --refine are two ways to continue a run"),
    ):
        done = run(*args, "--out", "wrong", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(f"error: {message}")
        assert not (tmp_path / "wrong").exists()


def test_an_unknown_flag_exits_2(tmp_path: Path) -> None:
    done = run("--learning-rate", 0.1, cwd=tmp_path)
    assert done.returncode == 2
    assert "learning-rate" in done.stderr


@pytest.mark.parametrize("preset", ["digits", "cs231n", "eecs498", "eecs498-net-hidden"])
def test_help_shows_the_defaults_of_the_preset(preset: str, tmp_path: Path) -> None:
    done = run("--preset", preset, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"(default: {preset})" in " ".join(done.stdout.split())


@pytest.mark.parametrize("program", ["sweep.py", "two_layer_search.py", "linear_probe.py"])
def test_help_fits_80_columns(program: str, tmp_path: Path) -> None:
    done = command.run(PROGRAM.with_name(program), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert program in done.stdout
    lines = done.stdout.splitlines()[1:]  # the first names the program with its path
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("own_optimizer.py", "on test, for the best"),
        ("own_model.py", "best      {'lr'"),
        ("pipeline.py", "over the folds"),
        pytest.param("optuna_search.py", "round 4: 0.9", marks=[pytest.mark.slow, needs_optuna]),
    ],
)
def test_an_example_of_the_library_is_short_and_runs(program: str, said: str, tmp_path: Path) -> None:
    path = PROGRAM.with_name(program)
    assert len(path.read_text().splitlines()) < 40
    done = command.run(path, cwd=tmp_path)
    assert done.returncode == 0
    assert said in done.stdout
    assert done.stderr == ""


JAXCLS = [sys.executable, "-c", "import sys; from jaxcls.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def jaxcls(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess]:
    """The command, in this process."""
    path = tmp_path_factory.mktemp("bin") / "jaxcls"
    path.write_text(JAXCLS[-1])
    return functools.partial(command.run, path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, jaxcls: Callable) -> Path:
    """A run on labels that are text, and its features: alone as .npy, and in the .npz."""
    folder = tmp_path_factory.mktemp("jaxcls")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    X = 100 + np.eye(3)[y] + 0.1 * rng.standard_normal((300, 3))
    np.savez(folder / "mine.npz", X=X, y=np.array(["ant", "bee", "a, b"])[y])
    np.save(folder / "X.npy", X)
    done = jaxcls("sweep", "--data", "mine.npz", "--lr", 1, "--reg", 0, "--steps", 50, "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "jaxcls predict run FEATURES" in done.stdout
    assert json.loads((folder / "run" / "run.json").read_text())["command"].startswith("jaxcls sweep --data mine.npz ")
    return folder


def test_labels_are_predicted_by_name(trained: Path, jaxcls: Callable) -> None:
    expected = np.load(trained / "mine.npz")["y"]
    for features in ("X.npy", "mine.npz"):
        done = jaxcls("predict", "run", features, cwd=trained)
        assert done.returncode == 0, done.stderr
        assert [row["label"] for row in csv.DictReader(done.stdout.splitlines())] == expected.tolist()
    assert jaxcls("predict", "run", "X.npy", "--out", "labels.npy", cwd=trained).returncode == 0
    assert np.load(trained / "labels.npy").tolist() == expected.tolist()


def test_probabilities_stand_under_the_names_of_the_classes(trained: Path, jaxcls: Callable) -> None:
    for out in ("p.csv", "p.npy"):
        assert jaxcls("predict", "run", "X.npy", "--proba", "--out", out, cwd=trained).returncode == 0
    with (trained / "p.csv").open() as file:
        names, *rows = csv.reader(file)
    assert names == ["a, b", "ant", "bee"]
    np.testing.assert_array_equal(np.array(rows, float), np.load(trained / "p.npy"))
    np.testing.assert_allclose(np.sum(np.array(rows, float), axis=1), 1)
    assert (
        np.array(names)[np.argmax(np.array(rows, float), axis=1)].tolist()
        == np.load(trained / "mine.npz")["y"].tolist()
    )


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(trained: Path) -> None:
    np.save(trained / "many.npy", np.ones((100_000, 3)))
    command = shlex.join([*JAXCLS, "predict", "run", "many.npy"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1"], cwd=trained, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("label\n", "")


def test_the_page_of_a_run_is_made_anew(trained: Path, jaxcls: Callable) -> None:
    page = trained / "run" / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert jaxcls("report", "run", cwd=trained).stdout == "wrote     run/report.html\n"
    assert page.read_bytes() == before


WRONG = {
    "command": (["sweeps"], "jaxcls has no command sweeps: expected sweep, probe, predict or report"),
    "features": (["predict", "run", "narrow.npy"], "narrow.npy must have the 3 features of the run, got 2"),
    "no features": (["predict", "run", "none.npy"], "none.npy: no such file, expected an .npy with X"),
    "no run": (["predict", "none", "X.npy"], "none/run.json: no such file, expected what a finished run left"),
    "the other way round": (["predict", "X.npy", "run"], "X.npy must be a run's folder, the features come after it"),
    "interrupted": (["predict", "half", "X.npy"], "half holds an interrupted run: --resume half ends it, with"),
    "page of one": (["report", "half"], "half holds an interrupted run: --resume half ends it, with the command"),
    "more steps of one": (["sweep", "--extend", "half"], "half holds an interrupted run: --resume half ends it"),
    "objects": (["predict", "run", "objects.npy"], "objects.npy cannot be read as an .npy of plain arrays: "),
    "labels": (["predict", "run", "labels.npz"], "labels.npz must hold X, or one array; it holds y"),
    "out": (["predict", "run", "X.npy", "--out", "y.txt"], "--out must end in .csv or .npy, got y.txt"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_with_the_command_is_one_line(mistake: str, trained: Path, jaxcls: Callable) -> None:
    np.save(trained / "narrow.npy", np.ones((4, 2)))
    np.save(trained / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.savez(trained / "labels.npz", y=np.arange(3))
    (trained / "half").mkdir(exist_ok=True)
    (trained / "half" / "checkpoint.safetensors").touch()
    args, sentence = WRONG[mistake]
    done = jaxcls(*args, cwd=trained)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")
    assert done.stderr.count("\n") == 1


def test_a_missing_extra_is_named_with_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "tyro.py").write_text("raise ModuleNotFoundError(name='tyro')")
    done = subprocess.run([*JAXCLS, "sweep"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == 'error: jaxcls sweep needs tyro: pip install "jaxcls[sweep]"\n'


def test_ctrl_c_while_it_imports_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tyro.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run([*JAXCLS, "sweep"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: stopped at once\n")


def test_a_closed_pipe_ends_the_printing_alone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with console._UntilClosed(writer, "w") as out:
        assert [out.write(b"a line\n") for _ in range(2)] == [7, 7]


def test_quiet_prints_nothing_and_json_the_record(trained: Path, jaxcls: Callable) -> None:
    options = ["--data", "mine.npz", "--lr", 1, "--reg", 0, "--steps", 50, "--memory", "1GB"]
    assert jaxcls("sweep", *options, "--quiet", "--out", "quiet", cwd=trained).stdout == ""
    printed = jaxcls("sweep", *options, "--json", "--out", "json", cwd=trained).stdout
    assert printed == (trained / "json" / "run.json").read_text()
    assert json.loads(printed)["command"] == "jaxcls sweep --data mine.npz --lr 1.0 --reg 0.0 --steps 50 --memory 1GB"


def test_runs_of_one_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.time, "strftime", lambda _: "20261121-120000")
    found = []
    for _ in range(3):
        found.append(console.run_folder("probe"))
        found[-1].mkdir(parents=True)
    assert [path.as_posix() for path in found] == [f"runs/probe-20261121-120000{end}" for end in ("", "-2", "-3")]


def test_the_version_is_printed(jaxcls: Callable, tmp_path: Path) -> None:
    done = jaxcls("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"jaxcls {version}\n")
