"""Parts shared by the commands while they train: a progress bar, and checkpoints to resume from."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import jax
from tqdm import tqdm

from jaxcls import sweep
from jaxcls.artifacts import checkpoint, record
from jaxcls.artifacts import folder as folders
from jaxcls.data import Splits
from jaxcls.numerics import one_line

Saved = tuple[sweep.Snapshot, dict[str, Any]]
STATE = "state.safetensors"  # of a finished run
OF_CELLS = (  # flags by which the state of a cell is what it is
    *("protocol", "model", "init", "init_scale", "precision", "flip"),
    *("batch_size", "sampling", "last_batch"),
    *("optimizer", "decay", "schedule", "warmup", "ema"),
    *("select", "keep", "patience"),
)
T = TypeVar("T")


def saved(args: list[str], kind: str) -> Saved | None:
    """The contents of the checkpoint in the folder of ``--resume``; None without that flag.

    Raises:
      ValueError: its run is finished, or of another kind, or the checkpoint is damaged.
      FileNotFoundError: there is no checkpoint.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--resume", nargs="?", type=Path)
    folder = parser.parse_known_args(args)[0].resume
    if not folder:
        return None
    if (folder / folders.RECORD).exists() and not (folder / checkpoint.NAME).exists():
        raise ValueError(f"{folder} holds a run that is finished: there is nothing to resume")
    found = checkpoint.read(folder / checkpoint.NAME)
    if (of := found[1].get("kind", kind)) != kind:
        raise ValueError(f"{folder} holds a {of}, to be resumed by jaxcls {of}")
    return found


def finished(folder: Path | None) -> Saved | None:
    """The state that a finished run kept in its folder, and the description of the run; None without a folder.

    Raises:
      ValueError: the run kept none, or it is damaged.
    """
    if folder is None:
        return None
    folders.check_finished(folder)
    if not (folder / STATE).exists():
        raise ValueError(f"{folder} holds no {STATE} of a finished run, which is kept up to 128 MB")
    return checkpoint.read(folder / STATE)


def keep_state(folder: Path, snapshot: sweep.Snapshot, run: Mapping[str, object]) -> Path:
    """Write the state of a finished run."""
    checkpoint.write(folder / STATE, snapshot, run)
    return folder / STATE


def continued(before: Saved, plan: sweep.Plan, depends_on: Mapping[str, object]) -> sweep.Snapshot:
    """The snapshot from which a finished run is continued.

    Raises:
      ValueError: its data were others, or flags that its cells depend on.
    """
    snapshot, run = before
    if run["depends_on"]["data"] != depends_on["data"]:
        raise ValueError("a finished run can be continued on its own data alone, got others")
    own, given = ({name: flags.get(name) for name in OF_CELLS} for flags in (run["depends_on"], depends_on))
    if others := checkpoint.differences(own, given):
        raise ValueError(f"a finished run can be continued with its own flags alone: {'; '.join(others)}")
    return sweep.continued(snapshot, plan)


def recorded(config: type[T], run: Mapping[str, Any]) -> T:
    """The configuration, a dataclass, that was recorded as these JSON values."""
    found = {}
    for name, hint in get_type_hints(config).items():
        if name in run:
            kind = get_origin(hint) or hint
            if kind in (Union, UnionType):  # of a value or None
                kind = get_origin(get_args(hint)[0]) or get_args(hint)[0]
            found[name] = run[name] if kind is Literal or run[name] is None else kind(run[name])
            if kind is tuple and Path in get_args(hint):
                found[name] = tuple(map(Path, run[name]))
    return config(**found)


def asked(config: object, without: Collection[str] = ()) -> dict[str, object]:
    """The flags of a command as JSON values, ``without`` some, and without ``--resume``."""
    return {
        name: list(map(_plain, value)) if isinstance(value, tuple) else _plain(value)
        for name, value in vars(config).items()
        if name != "resume" and name not in without
    }


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def dependencies(flags: Mapping[str, object], files: Collection[str], splits: Splits) -> dict[str, object]:
    """Everything that the bits of a result may depend on: flags but for ``files`` of data, the data, the machine."""
    without = {*files, "memory", "out", "quiet", "json"}  # data have a fingerprint, memory the blocks
    return {
        **{name: value for name, value in flags.items() if name not in without},
        "data": splits.fingerprint(),
        **record.machine(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "number of devices": jax.device_count(),
        **record.versions(),
    }


def resumed(saved: Saved | None, depends_on: Mapping[str, object], folder: Path) -> sweep.Snapshot | None:
    """The snapshot to resume from; None for a new run.

    Raises:
      ValueError: it is another run's; the error names the differences.
    """
    if saved is None:
        return None
    snapshot, run = saved
    if others := checkpoint.differences(run["depends_on"], depends_on):
        raise ValueError(f"{folder} cannot be resumed as another run: {'; '.join(others)}")
    return snapshot


def join_others() -> None:
    """Become one of several processes that train together.

    Raises:
      ValueError: nothing says which others there are.
    """
    try:
        jax.distributed.initialize()
    except ValueError as error:
        started = "which SLURM, MPI or Kubernetes starts"
        raise ValueError(f"--distributed is for one of several processes, {started}: {one_line(error)}") from None


def print_stopped(stopped: checkpoint.Stopped, plan: sweep.Plan, resume: str) -> None:
    """Print after how many steps of all blocks a signal ended the run, and what resumes it."""
    signum, snapshot = signal.Signals(stopped.signum).name, stopped.snapshot
    done, steps = plan.steps_done(snapshot.alive, snapshot.stage, snapshot.block, snapshot.step)
    print(f"\nstopped   by {signum} after {done:,} of {steps:,} steps; to resume:\n          {resume}")


class Progress:
    """A progress bar, shown after compilation; hidden if asked, or when stderr is not a terminal.

    Args:
      rows: examples that a step trains on.
      hidden: whether to show none.
    """

    bar: tqdm | None

    def __init__(self, rows: int, *, hidden: bool) -> None:
        self.rows, self.hidden = rows, hidden or not sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        print("compiling", end=" ", flush=True)
        self.started, self.bar = time.perf_counter(), None
        return self

    def __call__(self, row: sweep.Figures) -> None:
        """Move the bar to the step of a callback's row."""
        if self.bar is None:
            print(f"{time.perf_counter() - self.started:.1f} s", flush=True)
            self.bar = tqdm(
                total=row["steps"] * self.rows,
                desc="training",
                unit=" rows",
                unit_scale=True,
                disable=self.hidden,
                dynamic_ncols=True,
            )
        self.bar.update(row["step"] * self.rows - self.bar.n)
        diverged = f", {row['diverged']} diverged" if row["diverged"] else ""
        self.bar.set_postfix_str(f"loss {row['loss']:.4g}{diverged}", refresh=False)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
