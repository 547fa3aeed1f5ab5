"""What a run leaves, pictures aside: ``results.csv``, ``history.csv``, ``run.json`` and ``best.safetensors``."""

import csv
import io
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from jaxcls import two_layer
from jaxcls.classifier import Params
from jaxcls.data.splits import Splits
from jaxcls.folder import replacing
from jaxcls.precision import matmul_precision
from jaxcls.sweep import SCORES, History, SweepResult


def write(folder: str | Path, result: SweepResult, splits: Splits, config: Mapping[str, Any]) -> list[Path]:
    """Write the table, the record of the run and the best cell's params; the paths written.

    Args:
      folder: an existing folder.
      result: what the sweep found.
      splits: what it was trained on.
      config: what the user asked for; anything that JSON can say.

    Returns:
      ``results.csv``, ``history.csv`` if the result has one, ``run.json`` and, unless every cell diverged,
      ``best.safetensors``.
    """
    folder = Path(folder)
    files = {"results.csv": _csv(_results(result))}
    if result.history is not None:
        files["history.csv"] = _csv(_along(result, result.history))
    files["run.json"] = _json(result, splits, config)
    if result.params is not None:
        files["best.safetensors"] = _safetensors(result, splits)
    for name, content in files.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in files]


def reload_lines(path: str | Path, framework: str, params: Params) -> str:
    """A few lines of Python that load ``best.safetensors`` and predict ``y`` for raw features ``X: [N, d]``.

    Args:
      path: of ``best.safetensors``.
      framework: ``jax`` or ``torch``; nothing of jaxcls is needed in either.
      params: what the file holds: a lone array, or those of the two-layer net.

    Example:
      >>> print(reload_lines("run/best.safetensors", "torch", np.zeros((65, 10))))
      from safetensors.torch import load_file
      p = load_file("run/best.safetensors")
      y = ((X - p["mean"]) / p["scale"] @ p["W"][:-1] + p["W"][-1]).argmax(1)
    """
    module = {"jax": "flax", "torch": "torch"}[framework]  # safetensors.flax loads JAX arrays, without flax
    load = [f"from safetensors.{module} import load_file", f'p = load_file("{path}")']
    predict = ['y = ((X - p["mean"]) / p["scale"] @ p["W"][:-1] + p["W"][-1]).argmax(1)']
    if isinstance(params, two_layer.Params):
        predict = [
            'h = ((X - p["mean"]) / p["scale"] @ p["W1"] + p["b1"]).clip(0)',
            'y = (h @ p["W2"] + p["b2"]).argmax(1)',
        ]
    return "\n".join(load + predict)


def versions() -> dict[str, str]:
    """The versions that numbers may depend on."""
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in ("jaxcls", "jax", "jaxlib", "numpy", "optax")
    }


def device() -> str:
    """What the sweep runs on, in words."""
    first = jax.devices()[0]
    return f"{os.cpu_count()}-core CPU" if first.platform == "cpu" else f"{first.device_kind} ({first.platform})"


def _csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _results(result: SweepResult) -> Iterator[dict[str, Any]]:
    for row in result.table:
        numbers = {name: row[name].item() for name in (*result.grid.axes, *SCORES, "rank")}
        yield numbers | {"status": "ok" if row["diverged_at"] < 0 else "diverged"}


def _along(result: SweepResult, history: History) -> Iterator[dict[str, Any]]:
    for row, cell in enumerate(result.grid.cells()):
        for k, step in enumerate(history.step.tolist()):
            yield cell | {
                "step": step,
                "loss": result.losses[row, step].item(),
                "train_accuracy": history.train_accuracy[row, k].item(),
                "val_accuracy": history.val_accuracy[row, k].item(),
            }


def _json(result: SweepResult, splits: Splits, config: Mapping[str, Any]) -> bytes:
    record = {
        "config": config,
        "data": {
            "name": splits.name,
            "sha256": splits.fingerprint(),
            "examples": {role: len(split.y) for role, split in splits.items()},
            "features": splits.num_features,
            "classes": splits.class_names,
        },
        "device": device(),
        "matmul_precision": matmul_precision(),
        "versions": versions(),
        "cells": len(result.table),
        "diverged": [
            cell | {"step": step}
            for cell, step in zip(result.grid.cells(), result.table["diverged_at"].tolist(), strict=True)
            if step >= 0
        ],
        "selection": "highest validation accuracy; ties by lower validation loss, then by grid order",
        "best": _best(result),
        "timings": result.timings._asdict(),
    }
    return (json.dumps(record, indent=2) + "\n").encode()


def _best(result: SweepResult) -> dict[str, float] | None:
    if result.best is None:
        return None
    scores = {name: result.table[name][result.best].item() for name in ("train_accuracy", "val_accuracy")}
    return result.grid.cells()[result.best] | scores | {"test_accuracy": result.test_accuracy}


def _safetensors(result: SweepResult, splits: Splits) -> bytes:
    header = {"data": splits.name, "classes": list(splits.class_names)} | (_best(result) or {})
    tensors = _named(result.params) | {"mean": splits.mean, "scale": splits.scale}
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    # In one entry: safetensors writes several in another order every time.
    return safetensors.numpy.save(tensors, {"jaxcls": json.dumps(header)})


def _named(params: Params) -> dict[str, NDArray]:
    """Tensor names: the fields of a NamedTuple; a lone array is W."""
    return params._asdict() if hasattr(params, "_asdict") else {"W": params}
