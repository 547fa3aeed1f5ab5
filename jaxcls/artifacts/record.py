"""Files of a run but for its plots: tables of cells, of their history and of the confusions, record and weights."""

import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from jaxcls import two_layer
from jaxcls.artifacts.folder import RECORD, check_finished, replacing
from jaxcls.data import Splits
from jaxcls.grid import AXES
from jaxcls.metrics import Metric, Outcomes, confusion
from jaxcls.numerics import Params, matmul_precision, one_line
from jaxcls.result import History, SweepResult
from jaxcls.table import SCORES


class Run(NamedTuple):
    """Files of a run, read back.

    Attributes:
      record: ``run.json``.
      table: ``results.csv``, a row per cell, with its column names.
      history: ``history.csv`` in the same form; None if there is none.
      best: arrays of ``best.safetensors`` by name; None if every cell diverged.
      confusion: ``confusion.csv``, a row per pair of label and prediction that occurs on test; None without a test set.
    """

    record: dict[str, Any]
    table: NDArray
    history: NDArray | None
    best: dict[str, NDArray] | None
    confusion: NDArray | None = None


def write(folder: str | Path, result: SweepResult, splits: Splits, run: Mapping[str, object]) -> list[Path]:
    """Write the table, the best cell's params and the record of a run; return the paths.

    Args:
      folder: an existing folder.
      result: the result of the sweep.
      splits: the data it was trained on.
      run: further entries of the record, of any type that JSON supports.

    Returns:
      ``results.csv``, ``history.csv`` if the result has one, ``best.safetensors`` unless every cell diverged,
      ``confusion.csv`` if there is a test set, and ``run.json`` with the SHA-256 of each.

    Raises:
      OSError: a file cannot be written; an existing file is unchanged.
    """
    folder = Path(folder)
    files = {"results.csv": _csv(_results(result))}
    if result.history is not None:
        files["history.csv"] = _csv(_along(result, result.history))
    if result.params is not None:
        files["best.safetensors"] = _safetensors(result, splits)
    if result.test is not None:
        files["confusion.csv"] = _csv(_confusions(result.test, result.class_names))
    record = dict(run) | _record(result, splits)
    record["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record["sha256"] = _fingerprint(record)
    files[RECORD] = (json.dumps(record, indent=2) + "\n").encode()
    for name, content in files.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in files]


def read(folder: str | Path) -> Run:
    """Read the files that `write` wrote. A file that was changed since is rejected.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, or not one of a run; or the run was interrupted.

    Example:
      >>> import tempfile
      >>> from jaxcls import data, grid, sweep
      >>> splits, folder = data.standard(data.load_digits()), tempfile.mkdtemp()
      >>> paths = write(folder, sweep.run(splits, grid.Grid(lr=[0.1], reg=[0.0]), steps=20), splits, {})
      >>> read(folder).table["status"]
      array(['ok'], dtype='<U13')
    """
    path = Path(folder) / RECORD
    check_finished(folder)
    try:
        record = json.loads(path.read_text("utf-8"))
        if record.pop("sha256") != _fingerprint(record):
            raise ValueError("its SHA-256 does not match its content")
        found: dict[str, Any] = {}
        for name, sha256 in record["files"].items():
            parse = _READERS[name]  # rejects unknown names before they become part of a path
            path = Path(folder) / name
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ValueError("its SHA-256 does not match the one in run.json")
            found[name] = parse(content)
        return Run(record, found["results.csv"], *(found.get(name) for name in OPTIONAL))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected what a finished run left") from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} is damaged, or not what a run wrote: {one_line(error)}") from None


def reload_lines(
    path: str | Path, framework: str, params: Params, class_names: Sequence[str] = (), *, unit_length: bool = False
) -> str:
    """Lines of Python that load ``best.safetensors`` and predict ``y`` for raw features ``X: [N, d]``.

    Args:
      path: the path of ``best.safetensors``.
      framework: ``numpy``, which also serves JAX arrays, or ``torch``. Neither needs jaxcls.
      params: the params in the file: one array, or those of the two-layer net.
      class_names: the labels of the classes; where they are not their numbers, ``labels`` are predicted, too.
      unit_length: whether examples are scaled to length 1.

    Example:
      >>> print(reload_lines("run/best.safetensors", "torch", np.zeros((65, 10))))
      from safetensors.torch import load_file
      p = load_file("run/best.safetensors")
      X = ((X - p["mean"]) / p["scale"]).to(p["W"].dtype)
      y = (X @ p["W"][:-1] + p["W"][-1]).argmax(1)
    """
    net = isinstance(params, two_layer.Params)
    prepared = '(X - p["mean"]) / p["scale"]'  # in float64, the dtype of mean and scale
    if framework == "torch":  # torch does not multiply different dtypes
        prepared = f'({prepared}).to(p["{"W1" if net else "W"}"].dtype)'
    file = json.dumps(Path(path).as_posix(), ensure_ascii=False)
    lines = [f"from safetensors.{framework} import load_file", f"p = load_file({file})", f"X = {prepared}"]
    if unit_length:
        lines += ["X = X / (X * X).sum(1).clip(1e-24)[:, None] ** 0.5"]
    if net:
        lines += ['h = (X @ p["W1"] + p["b1"]).clip(0)', 'y = (h @ p["W2"] + p["b2"]).argmax(1)']
    else:
        lines += ['y = (X @ p["W"][:-1] + p["W"][-1]).argmax(1)']
    if list(class_names) != [str(k) for k in range(len(class_names))]:
        lines += [
            "import json, safetensors",
            f'header = safetensors.safe_open({file}, "numpy").metadata()',
            'names = json.loads(header["jaxcls"])["classes"]',
            "labels = [names[k] for k in y]",
        ]
    return "\n".join(lines)


def command(program: str, config: object, defaults: Mapping[str, object]) -> str:
    """Shell command that reproduces this run: the program and each flag that differs from its default.

    Args:
      program: the program, as typed in a shell.
      config: a dataclass with one field per flag.
      defaults: the default of each flag. A flag whose default is its value is left out.

    Example:
      >>> from dataclasses import make_dataclass
      >>> config = make_dataclass("Config", ["lr", "batch_size", "out"])((0.1, 1.0), 20, "here")
      >>> command("jaxcls sweep", config, {"lr": (), "batch_size": 200, "out": "here"})
      'jaxcls sweep --lr 0.1 1.0 --batch-size 20'
    """
    flags = []
    for name, value in vars(config).items():
        if value != defaults[name]:
            no, values = ("no-" if value is False else ""), value if isinstance(value, tuple) else (value,)
            flags += [f"--{no}{name.replace('_', '-')}", *map(str, () if isinstance(value, bool) else values)]
    return " ".join([program, shlex.join(flags)]).strip()


def as_json(scored: Mapping[str, Metric]) -> dict[str, dict[str, float]]:
    """Metrics with their intervals as JSON values.

    Example:
      >>> as_json({"accuracy": Metric(0.5, 0.4, 0.6)})
      {'accuracy': {'value': 0.5, 'low': 0.4, 'high': 0.6}}
    """
    return {name: each._asdict() for name, each in scored.items()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results may depend on."""
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in ("jaxcls", "jax", "jaxlib", "numpy", "optax")
    }


def machine() -> dict[str, str]:
    """JAX's first device and the name of the processor.

    Example:
      >>> list(machine())
      ['device', 'processor']
    """
    return {"device": device(), "processor": _processor()}


def device() -> str:
    """Name of JAX's first device; for a CPU, with the number of cores that this process may use."""
    first = jax.devices()[0]
    if first.platform != "cpu":
        return f"{first.device_kind} ({first.platform})"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores}-core CPU"


def _processor() -> str:
    """Name of the processor; empty if the system reports none."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor()


def _csv(rows: Iterable[Mapping[str, object]]) -> bytes:
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _columns(content: bytes) -> NDArray:
    rows = list(csv.reader(io.StringIO(content.decode())))
    integers = {"rank", "step", "iterations", "one_se", "stopped_at"} | {
        axis for axis, kind in AXES.items() if kind is int
    }
    kinds = {name: "i8" if name in integers else "U13" if name == "status" else "f8" for name in rows[0]}
    return np.array([tuple(row) for row in rows[1:]], list(kinds.items()))


def _pairs(content: bytes) -> NDArray:
    rows = list(csv.reader(io.StringIO(content.decode())))[1:]
    wide = max((len(text) for row in rows for text in row[:2]), default=1)
    return np.array([tuple(row) for row in rows], [("label", f"U{wide}"), ("predicted", f"U{wide}"), ("count", "i8")])


def _tensors(content: bytes) -> dict[str, NDArray]:
    return dict(sorted(safetensors.numpy.load(content).items()))  # safetensors returns them in varying order


_READERS: Mapping[str, Callable[[bytes], Any]] = {
    "results.csv": _columns,
    "history.csv": _columns,
    "best.safetensors": _tensors,
    "confusion.csv": _pairs,
}
OPTIONAL = ("history.csv", "best.safetensors", "confusion.csv")  # in the order of the fields of `Run`


def _results(result: SweepResult) -> Iterator[dict[str, object]]:
    for row, within in zip(result.table, result.within_one_se.astype(int).tolist(), strict=True):
        numbers = dict(zip(row.dtype.names, row.item(), strict=True))
        if (result.table["stopped_at"] < 0).all():
            del numbers["stopped_at"]
        yield numbers | {
            "one_se": within,
            "status": _status(
                numbers.pop("diverged_at"), numbers.get("stopped_at", -1), converged=numbers.pop("converged", True)
            ),
        }


def _status(diverged_at: int, stopped_at: int, *, converged: bool) -> str:
    """The end of a cell's training in a word."""
    if diverged_at >= 0:
        return "diverged"
    return "stopped" if stopped_at >= 0 else "ok" if converged else "not converged"


def _confusions(test: Outcomes, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Pairs of label and prediction that occur."""
    counts = confusion(test, len(names))
    names = [name.encode("utf-8", "replace").decode() for name in names]  # half of a surrogate pair is no text
    for label, predicted in np.argwhere(counts).tolist():
        yield {"label": names[label], "predicted": names[predicted], "count": counts[label, predicted].item()}


def _along(result: SweepResult, history: History) -> Iterator[dict[str, object]]:
    for row, cell in enumerate(result.grid.cells()):
        for k, step in enumerate(history.step.tolist()):
            yield cell | {
                "step": step,
                "loss": result.losses[row, step].item(),
                "train_accuracy": history.train_accuracy[row, k].item(),
                "val_accuracy": history.val_accuracy[row, k].item(),
            }


def _record(result: SweepResult, splits: Splits) -> dict[str, object]:
    return {
        "data": {
            "name": splits.name,
            "sha256": splits.fingerprint(),
            "examples": {role: len(split.y) for role, split in splits.items()},
            "features": splits.num_features,
            "classes": splits.class_names,
            "unit_length": splits.unit_length,
            "feature_names": splits.feature_names,
        },
        "device": device(),
        "matmul_precision": matmul_precision(),
        "versions": versions(),
        "cells": len(result.table),
        "cells_are": result.grid.kind,
        "stages": [{"cells": cells, "steps": last} for cells, _, last in result.stages],
        "train_scored": result.num_scored,
        "diverged": [
            cell | {"step": step}
            for cell, step in zip(result.grid.cells(), result.table["diverged_at"].tolist(), strict=True)
            if step >= 0
        ],
        "select": result.select,
        "selection": _selection(result),
        "within_one_se": int(result.within_one_se.sum()),
        "chosen": "best" if result.chosen is None else "one-se",
        "best": _best(result),
        "test": as_json(result.metrics),
        "timings": result.timings._asdict(),
    }


def _selection(result: SweepResult) -> str:
    """The rule of selection in words."""
    rule = f"{'lowest' if result.select == 'log-loss' else 'highest'} {result.criterion}"
    if result.chosen is not None:
        return f"the most regularised, slowest-learning cell within one standard error of the {rule}"
    return f"{rule}; ties by lower validation loss, then by grid order"


def _fingerprint(record: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _best(result: SweepResult) -> dict[str, float] | None:
    if result.best is None:
        return None
    names = tuple(name for name in SCORES if not name.endswith("loss"))
    scores = {name: result.table[name][result.best].item() for name in names}
    on_test = {} if result.test is None else {"test_accuracy": result.test_accuracy}
    return result.grid.cells()[result.best] | scores | on_test


def _safetensors(result: SweepResult, splits: Splits) -> bytes:
    header = {"data": splits.name, "classes": list(splits.class_names), "unit_length": result.unit_length}
    header |= _best(result) or {}
    tensors = _named(result.params) | {"mean": result.mean, "scale": result.scale}
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    # One entry: safetensors writes several in varying order.
    return safetensors.numpy.save(tensors, {"jaxcls": json.dumps(header)})


def _named(params: Params) -> dict[str, NDArray]:
    """Tensors by name: the fields of a NamedTuple; a single array is W."""
    return params._asdict() if hasattr(params, "_asdict") else {"W": params}
