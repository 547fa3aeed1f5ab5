"""Checkpoints: a sweep stopped and resumed to the same bytes, and damaged or foreign checkpoints rejected."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import safetensors.numpy

from jaxcls import sweep
from jaxcls.artifacts import checkpoint, record
from jaxcls.artifacts.folder import claim
from jaxcls.classifier import linear, two_layer_net
from jaxcls.cli.sweep_output import report_stopped
from jaxcls.data import Split, Splits
from jaxcls.engine import cells
from jaxcls.engine.planning import nbytes
from jaxcls.grid import Grid
from jaxcls.result import SweepResult
from parity_tests.support import command
from parity_tests.support.cases import slow

PROGRAM = Path(__file__).parents[1] / "examples" / "sweep.py"
LR, REG = [0.1, 1e30, 1.0], [0.0, 1e-2]

SWEEPS: dict[str, tuple[Grid, dict[str, Any]]] = {
    "nets of two sizes, momentum": (
        Grid(LR, REG, [5], [3, 40]),
        {
            "classifier": two_layer_net(init_scale=0.1),
            "optimizer": lambda lr: optax.sgd(lr, momentum=0.9),
            "history": True,
        },
    ),
    "nets in programs of their own, streamed": (
        Grid(LR, REG, [5], [3, 40]),
        {"classifier": two_layer_net(init_scale=0.1), "optimizer": optax.adam, "stream": True},
    ),
    "linear, SGD": (Grid(LR, REG, [0, 1]), {"classifier": linear(), "optimizer": optax.sgd}),
    "linear, noise from a key": (Grid(LR, REG), {"optimizer": lambda lr: optax.noisy_sgd(lr, key=jax.random.key(3))}),
    "linear, Adam, in blocks": (Grid(LR, REG, [0, 1]), {"classifier": linear(), "optimizer": optax.adam}),
}


@pytest.mark.parametrize("name", [*list(SWEEPS)[:2], *slow(*list(SWEEPS)[2:])])
def test_a_sweep_resumed_from_any_chunk_writes_the_same_bytes(
    name: str, digits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, options = SWEEPS[name]
    if "programs of their own" in name:
        monkeypatch.setattr("jaxcls.engine.planning.groups", lambda sizes, work: [(size,) for size in sizes])
    options = options | {"steps": 37, "chunk_steps": 15}
    if "blocks" in name:
        problem = cells.problem(digits, classifier=linear(), optimizer=optax.adam)
        options["memory"] = nbytes(digits) + 4 * cells.estimate(problem, batch_size=200)
        options["stream"] = False
    saved: list[Path] = []

    def save(take: Callable[[], sweep.Snapshot]) -> None:
        saved.append(tmp_path / f"{len(saved)}.safetensors")
        checkpoint.write(saved[-1], take(), {"of": name})

    def written(result: SweepResult, folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        paths = record.write(folder, result, digits, {})
        return {path.name: path.read_bytes() for path in paths if path.name != "run.json"}

    whole = written(sweep.run(digits, grid, save=save, **options), tmp_path / "whole")
    assert {"results.csv", "best.safetensors"} <= whole.keys()
    assert len(saved) == 1 + (3 * 4 if "blocks" in name else 7 if "history" in options else 3)
    for k, path in enumerate(saved[:: 3 if len(saved) > 5 else 1]):
        snapshot, run = checkpoint.read(path)
        assert run == {"of": name}
        resumed = sweep.run(digits, grid, resume=snapshot, **options)
        assert written(resumed, tmp_path / f"resumed {k}") == whole


@pytest.fixture(scope="module")
def saved(digits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / checkpoint.NAME
    sweep.run(digits, Grid([0.1], [0.0]), steps=4, chunk_steps=2, save=lambda take: checkpoint.write(path, take(), {}))
    return path


def test_a_snapshot_of_another_sweep_is_refused(saved: Path, digits: Splits) -> None:
    snapshot, _ = checkpoint.read(saved)
    with pytest.raises(ValueError, match="resume must be a snapshot of this very sweep, got one of another"):
        sweep.run(digits, Grid([0.2], [0.0]), steps=4, chunk_steps=2, resume=snapshot)
    with pytest.raises(ValueError, match="resume must be a snapshot of this very sweep, got one of another"):
        sweep.run(digits, Grid([0.1], [0.0]), steps=8, chunk_steps=2, resume=snapshot)
    with pytest.raises(ValueError, match="resume must be a snapshot of this very sweep, got one of another"):
        sweep.run(digits, Grid([0.1], [0.0]), steps=4, chunk_steps=2, batch_size=100, resume=snapshot)
    with pytest.raises(ValueError, match="resume must be a snapshot of this very sweep, got one of another"):
        sweep.run(digits, Grid([0.1], [0.0]), steps=4, chunk_steps=2, select="log-loss", resume=snapshot)
    others = replace(digits, train=Split(digits.train.X, digits.train.y[::-1]))
    with pytest.raises(ValueError, match="resume must be a snapshot of this very sweep, got one of another"):
        sweep.run(others, Grid([0.1], [0.0]), steps=4, chunk_steps=2, resume=snapshot)
    with pytest.raises(ValueError, match="the saved state must be of the model, optimizer and grid"):
        sweep.run(digits, Grid([0.1], [0.0]), steps=4, chunk_steps=2, optimizer=optax.adam, resume=snapshot)


def test_a_checkpoint_with_one_number_changed_is_refused(saved: Path, tmp_path: Path) -> None:
    with safetensors.safe_open(saved, "numpy") as file:
        text = file.metadata()["jaxcls"]
    arrays = safetensors.numpy.load_file(saved)
    later = json.dumps(json.loads(text) | {"step": 2})
    for changed, its_text in ((arrays | {"losses": arrays["losses"] * 2}, text), (arrays, later)):
        safetensors.numpy.save_file(changed, tmp_path / "changed", {"jaxcls": its_text})
        with pytest.raises(ValueError, match="is damaged and cannot be resumed: its SHA-256 is not that"):
            checkpoint.read(tmp_path / "changed")


def test_saving_takes_a_small_part_of_the_time(tmp_path: Path, saved: Path) -> None:
    snapshot, _ = checkpoint.read(saved)
    saver, taken = checkpoint.Saver(tmp_path, {}), []
    end = time.perf_counter() + 1

    def take() -> sweep.Snapshot:
        taken.append(time.perf_counter())
        time.sleep(0.004)
        return snapshot

    while time.perf_counter() < end:
        saver(take)
    assert 1 <= len(taken) <= 1 / (0.004 * checkpoint.SHARE)


# The program, but that it saves after every chunk: a run need not be long to be seen at its middle.
SAVING = "import runpy, sys; from jaxcls.artifacts import checkpoint; checkpoint.SHARE = 0; sys.argv[:1] = []; "
SAVING += "runpy.run_path(sys.argv[0], run_name='__main__')"


def sweeping(*args: object, cwd: Path, before: Sequence[str] = ()) -> subprocess.Popen:
    command = [*before, sys.executable, "-c", SAVING, str(PROGRAM), *map(str, args)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def once_it_trains(process: subprocess.Popen, folder: Path) -> None:
    """Wait until the folder has a checkpoint of a step."""
    for _ in range(1000):
        assert process.poll() is None, process.communicate()
        if (folder / checkpoint.NAME).exists() and checkpoint.read(folder / checkpoint.NAME)[0].step:
            return
        time.sleep(0.05)
    raise AssertionError("no step within 50 s")


SMALL = ("--lr", 0.1, 1, "--reg", 0, 1e-3)
LONG = (*SMALL, "--steps", 20_000)


def test_a_stopped_search_shows_what_each_cell_has_come_to(digits: Splits, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a rung, in the second of three blocks: those of the first are parked, and have no scores."""
    memory = nbytes(digits) + 2 * cells.estimate(cells.problem(digits), batch_size=200)
    options: dict[str, Any] = {"chunk_steps": 2, "memory": memory, "stream": False}
    plan = sweep.plan(digits, Grid([0.1, 0.2, 0.3], [0.0, 0.1]), steps=8, halving=sweep.Halving(rungs=(4,)), **options)

    def save(take: Callable[[], sweep.Snapshot]) -> None:
        snapshot = take()
        if (snapshot.stage, snapshot.block, snapshot.step) == (0, 1, 2):
            raise checkpoint.Stopped(signal.SIGINT, snapshot)

    with pytest.raises(checkpoint.Stopped) as stopped:
        sweep.execute(plan, digits, save=save)
    report_stopped(stopped.value, plan, "jaxcls sweep --resume run")
    shown = capsys.readouterr().out
    assert [shown.count(end) for end in ("at step 4", "at step 2", "not begun")] == [2, 2, 2]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed, and one of the same command that was not."""
    place = tmp_path_factory.mktemp("killed")
    run = sweeping(*LONG, "--out", "run", cwd=place)
    once_it_trains(run, place / "run")
    run.kill()
    run.communicate()
    whole = command.run(PROGRAM, *LONG, "--out", "whole", cwd=place)
    assert whole.returncode == 0, whole.stderr
    return place


@pytest.mark.parametrize(
    "signum",
    [signal.SIGTERM, *slow(signal.SIGKILL, signal.SIGINT)],
)
def test_a_run_that_a_signal_ended_is_resumed_to_the_same_bytes(
    signum: signal.Signals, killed: Path, tmp_path: Path
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "run"
    process = sweeping("--resume", "run", cwd=tmp_path)
    if signum != signal.SIGKILL:
        assert process.stdout.readline().startswith("jaxcls")
        time.sleep(0.2)
        process.send_signal(signum)
        stdout, stderr = process.communicate()
        assert process.returncode == 128 + signum
        assert stderr == "\nstopping after this chunk; once more to stop at once\n"
        assert stdout.count(" at step ") + stdout.count("not begun") == 4
        assert f"stopped   by {signum.name} after " in stdout
        assert stdout.endswith("sweep.py --resume run\n")
        assert [path.name for path in run.iterdir()] == [checkpoint.NAME]
        process = sweeping("--resume", "run", cwd=tmp_path)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert {path.name for path in run.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    for name in ("results.csv", "best.safetensors"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


OTHERWISE = {
    "data": (["--data", "other.npz"], "data changed"),
    "lr": (["--lr", 0.5], "lr was [0.1, 1.0], is [0.5]"),
    "two things": (["--seeds", 1, "--steps", 10], "seeds was [0], is [1]; steps was 20000, is 10"),
    "model": (["--model", "two-layer"], "model was 'linear', is 'two-layer'"),
    "finished": (["--resume", "whole"], "whole holds a run that is finished: there is nothing to resume"),
    "no folder": (
        ["--resume", "nowhere"],
        "nowhere/checkpoint.safetensors: no such file, so there is no run to resume",
    ),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_a_run_is_not_resumed_as_another(what: str, killed: Path) -> None:
    args, sentence = OTHERWISE[what]
    np.savez(killed / "other.npz", X=np.eye(64)[:60], y=np.arange(60) % 10)
    before = {path: path.read_bytes() for path in (killed / "run").iterdir()}
    done = command.run(PROGRAM, "--resume", "run", *args, cwd=killed)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in (killed / "run").iterdir()} == before


OTHER_GENERATORS = {
    "another one": lambda: jax.default_prng_impl("rbg"),
    "drawn otherwise": lambda: jax.threefry_partitionable(False),
}


@pytest.mark.parametrize("other", OTHER_GENERATORS.values(), ids=OTHER_GENERATORS)
def test_a_seed_draws_the_same_numbers_whatever_jax_is_set_to(other: Callable[[], Any], digits: Splits) -> None:
    def losses() -> np.ndarray:
        return sweep.run(digits, Grid([0.1], [0.0], [0, 1]), steps=5, batch_size=20).losses

    expected = losses()
    with other():
        np.testing.assert_array_equal(losses(), expected)


def test_another_version_is_named(killed: Path, tmp_path: Path) -> None:
    snapshot, run = checkpoint.read(killed / "run" / checkpoint.NAME)
    run["depends_on"] |= {"jax": "0.1.0", "processor": "an abacus", "XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}
    checkpoint.write(tmp_path / checkpoint.NAME, snapshot, run)
    stderr = command.run(PROGRAM, "--resume", ".", cwd=tmp_path).stderr
    assert stderr.startswith("error: . cannot be resumed as another run: processor was 'an abacus', is '")
    flags = os.environ["XLA_FLAGS"]
    assert f"; XLA_FLAGS was '--xla_cpu_enable_fast_math=true', is '{flags}'; jax was '0.1.0', is '0." in stderr


def test_of_two_runs_the_first_wins_the_folder(killed: Path, tmp_path: Path) -> None:
    with claim(tmp_path / "run"):
        for args in (["--out", "run"], ["--resume", "run"]):
            shutil.copy(killed / "run" / checkpoint.NAME, tmp_path / "run")
            done = command.run(PROGRAM, *args, cwd=tmp_path)
            assert done.returncode == 2
            assert done.stderr == "error: run is in use: another run is writing to it\n"


def test_a_full_disk_ends_in_one_line_and_leaves_the_checkpoint(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed / "run", tmp_path / "run")
    path = tmp_path / "run" / checkpoint.NAME
    before = path.read_bytes()

    little_room = ("bash", "-c", f'ulimit -f {len(before) // 2048}; exec "$@"', "bash")
    process = sweeping("--resume", "run", cwd=tmp_path, before=little_room)
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert stderr == "error: run/checkpoint.safetensors cannot be written: File too large\n"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_folder_deleted_mid_run_ends_in_one_line(tmp_path: Path) -> None:
    process = sweeping(*LONG, "--out", "run", cwd=tmp_path)
    once_it_trains(process, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "gone")  # at once, where rmtree would meet a checkpoint being written
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert stderr == "error: run/checkpoint.safetensors cannot be written: No such file or directory\n"
    assert os.listdir(tmp_path) == ["gone"]


def test_permission_lost_mid_run_leaves_the_checkpoint(digits: Splits, tmp_path: Path) -> None:
    saver, saved = checkpoint.Saver(tmp_path, {}), []

    def lose_permission(row: sweep.Figures) -> None:
        saved.append(saver.path.read_bytes())
        os.seteuid(65534) if os.getuid() == 0 else tmp_path.chmod(0o500)
        saver.took = 0.0  # it is time to save again

    try:
        with pytest.raises(OSError, match=r"checkpoint\.safetensors cannot be written: Permission denied"):
            sweep.run(digits, Grid([0.1], [0.0]), steps=4, chunk_steps=2, save=saver, callback=lose_permission)
    finally:
        os.seteuid(0) if os.getuid() == 0 else tmp_path.chmod(0o700)
    assert [file.name for file in tmp_path.iterdir()] == [checkpoint.NAME]
    assert [saver.path.read_bytes()] == saved
