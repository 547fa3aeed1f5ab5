"""Checkpoints of a sweep: written atomically, resumed only by the identical sweep.

A checkpoint is one safetensors file, arrays and JSON, so that reading it runs no code. It holds the SHA-256 of the rest
of its contents.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from jaxcls.artifacts.folder import CHECKPOINT, replacing
from jaxcls.engine import ARRAYS, Parked, Snapshot
from jaxcls.numerics import one_line, sha256
from jaxcls.result import Timings

NAME = CHECKPOINT
LEAVES, NUMBERS = ("best", "state"), ("stage", "block", "step", "halving", "fingerprint")  # of a snapshot
SHARE = 50  # saving takes at most one fiftieth of the run time


class Stopped(Exception):  # noqa: N818
    """A signal ended the sweep; its snapshot is saved.

    Attributes:
      signum: the signal's number.
      snapshot: the sweep when it ended.
    """

    def __init__(self, signum: int, snapshot: Snapshot) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum, self.snapshot = signum, snapshot


class Saver:
    """The ``save`` of `jaxcls.sweep.run`: writes checkpoints to ``folder``, for at most 2 % of the run time.

    A signal is answered by a checkpoint too. Several processes that train together save after every chunk, so that all
    of them save at the same steps, and process 0 writes.

    Args:
      folder: an existing one.
      run: a description of the sweep, which `read` returns; JSON values.

    Example:
      >>> import tempfile
      >>> from jaxcls import data, grid, sweep
      >>> splits, folder = data.standard(data.load_digits()), tempfile.mkdtemp()
      >>> saver = Saver(folder, {"lr": [0.1]})
      >>> result = sweep.run(splits, grid.Grid(lr=[0.1], reg=[0.0]), steps=20, save=saver)
      >>> snapshot, run = read(saver.path)
      >>> run
      {'lr': [0.1]}
      >>> resumed = sweep.run(splits, grid.Grid(lr=[0.1], reg=[0.0]), steps=20, resume=snapshot)
      >>> bool((resumed.params == result.params).all())
      True
    """

    def __init__(self, folder: str | Path, run: Mapping[str, object]) -> None:
        self.path, self.run = Path(folder) / NAME, run
        self.signum: int | None = None
        self.saved_at, self.took = -np.inf, 0.0

    def __call__(self, take: Callable[[], Snapshot]) -> None:
        """Save if a checkpoint is due.

        Raises:
          OSError: the file cannot be written; the checkpoint before it is intact.
          Stopped: a signal came.
        """
        start = time.perf_counter()
        if jax.process_count() == 1 and self.signum is None and start - self.saved_at < SHARE * self.took:
            return
        snapshot = take()
        if jax.process_index() == 0:
            write(self.path, snapshot, self.run)
        self.saved_at = time.perf_counter()
        self.took = self.saved_at - start
        if self.signum is not None:
            raise Stopped(self.signum, snapshot)

    @contextmanager
    def signals(self, heard: Callable[[], None]) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the sweep after the running chunk; a second one ends it at once.

        In the main thread only. Several processes that train together end at once, since none can stop alone.

        Args:
          heard: called in the handler of the first signal.
        """
        if jax.process_count() > 1:
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}

        def restore() -> None:
            for signum, handler in before.items():
                signal.signal(signum, handler)

        def stop(signum: int, _: FrameType | None) -> None:
            restore()
            self.signum = signum
            heard()

        for signum in before:
            signal.signal(signum, stop)
        try:
            yield
        finally:
            restore()


def write(path: str | Path, snapshot: Snapshot, run: Mapping[str, object]) -> None:
    """Write a checkpoint atomically, replacing an earlier one.

    Raises:
      OSError: it cannot be written; an earlier one is intact.
    """
    columns = snapshot.table.dtype.names or ()
    arrays = {f"table/{column}": snapshot.table[column] for column in columns}
    arrays |= {name: getattr(snapshot, name) for name in ARRAYS}
    for name in LEAVES:
        arrays |= {f"{name}/{k}": leaf for k, leaf in enumerate(getattr(snapshot, name))}
    for number, part in enumerate(snapshot.parked):
        arrays |= {f"parked/{number}/{k}": leaf for k, leaf in enumerate((part.rows, *part.leaves))}
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    where: dict[str, object] = {"columns": columns, "timings": snapshot.timings._asdict()}
    where |= {name: getattr(snapshot, name) for name in NUMBERS}
    where |= {name: len(getattr(snapshot, name)) for name in LEAVES}
    where |= {"parked": [len(part.leaves) for part in snapshot.parked]}
    text = json.dumps(where | {"run": run})
    content = safetensors.numpy.save(arrays | {"sha256": _digest(arrays, text)}, {"jaxcls": text})
    with replacing(Path(path)) as partial:
        partial.write_bytes(content)


def read(path: str | Path) -> tuple[Snapshot, dict[str, Any]]:
    """The snapshot in a checkpoint, and the description of its sweep.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged, or is something else.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            text = (file.metadata() or {})["jaxcls"]
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not np.array_equal(arrays.pop("sha256"), _digest(arrays, text)):
            raise ValueError("its SHA-256 is not that of what it holds")
        where = json.loads(text)
        columns = {column: arrays[f"table/{column}"] for column in where["columns"]}
        best, state = ([arrays[f"{name}/{k}"] for k in range(where[name])] for name in LEAVES)
        parked = [
            Parked(arrays[f"parked/{number}/0"], [arrays[f"parked/{number}/{k + 1}"] for k in range(count)])
            for number, count in enumerate(where["parked"])
        ]
        snapshot = Snapshot(
            table=_structured(columns),
            **{name: arrays[name] for name in ARRAYS},
            **{name: where[name] for name in NUMBERS},
            best=best,
            state=state,
            parked=parked,
            timings=Timings(**where["timings"]),
        )
        return snapshot, where["run"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, so there is no run to resume") from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} is damaged and cannot be resumed: {one_line(error)}") from None


def differences(saved: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """The differences between two runs, one phrase each; of data, without their SHA-256.

    Example:
      >>> differences({"lr": [0.1], "jax": "0.10.1"}, {"lr": [0.1], "jax": "0.10.2"})
      ["jax was '0.10.1', is '0.10.2'"]
    """
    names = [*saved, *(name for name in now if name not in saved)]
    pairs = [(name, saved.get(name), now.get(name)) for name in names]
    return [
        f"{name} changed" if name == "data" else f"{name} was {was!r}, is {is_!r}"
        for name, was, is_ in pairs
        if was != is_
    ]


def _structured(columns: Mapping[str, NDArray]) -> NDArray:
    table = np.empty(len(next(iter(columns.values()))), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    return table


def _digest(arrays: Mapping[str, NDArray], text: str) -> NDArray[np.uint8]:
    return np.frombuffer(sha256(sorted(arrays.items()), text), np.uint8)
