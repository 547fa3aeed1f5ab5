"""``jaxcls predict``: labels of new features, by the best cell of a run."""

import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.special import softmax

from jaxcls import data
from jaxcls.artifacts import record
from jaxcls.artifacts.folder import replacing

BLOCK = 10_000  # examples whose logits are in memory at once


@dataclass(frozen=True)
class Config:
    """Predict the labels of new features, by the best cell of a run."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    features: tyro.conf.Positional[Path]
    """Raw features [N, d], as the run's data had them: an .npy, or X of an .npz, .safetensors or .pt."""
    proba: bool = False
    """The probability of each class instead of the label."""
    out: Path | None = None
    """A .csv or an .npy to write; the table is printed if not given."""


def main(args: list[str], program: str) -> int:
    """Read the command line and predict; the exit code."""
    config = tyro.cli(Config, args=args, prog=program)
    if config.out and config.out.suffix not in (".csv", ".npy"):
        raise ValueError(f"--out must end in .csv or .npy, got {config.out}")
    run = record.read(config.run)
    if run.best is None:
        raise ValueError(f"{config.run} holds no weights: every cell diverged")
    X, names = data.load_features(config.features), np.array(run.record["data"]["classes"])
    if X.shape[1] != (width := len(run.best["mean"])):
        raise ValueError(f"{config.features} must have the {width} features of the run, got {X.shape[1]}")
    scores = np.concatenate([logits(run.best, X[k : k + BLOCK]) for k in range(0, len(X), BLOCK)])
    answer = softmax(scores, axis=1) if config.proba else names[scores.argmax(axis=1)]
    if config.out is None:
        sys.stdout.write(table(answer, names))
        return 0
    with replacing(config.out) as partial:
        if config.out.suffix == ".npy":
            np.save(partial, answer)
        else:
            partial.write_text(table(answer, names))
    return 0


def logits(best: dict[str, NDArray], X: NDArray) -> NDArray[np.floating]:
    """The logits of raw features, ``[N, C]``, from the arrays of ``best.safetensors``."""
    X = (X - best["mean"]) / best["scale"]
    if "W" in best:
        return X @ best["W"][:-1] + best["W"][-1]
    if "W1" in best:
        return np.maximum(X @ best["W1"] + best["b1"], 0) @ best["W2"] + best["b2"]
    raise ValueError(f"the run must have trained a linear model or a two-layer net, its arrays are {', '.join(best)}")


def table(answer: NDArray, names: NDArray) -> str:
    """Labels, one per line, or probabilities with the class names as header, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label"] if answer.ndim == 1 else names)
    writer.writerows([label] for label in answer) if answer.ndim == 1 else writer.writerows(answer.tolist())
    return text.getvalue()
