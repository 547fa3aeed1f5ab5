"""``jaxcls predict``: labels of new features, by the best cell of a run."""

import csv
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.special import softmax

from jaxcls import data
from jaxcls.artifacts import folder, record
from jaxcls.numerics import checks

BLOCK = 10_000  # examples whose logits are in memory at once


@dataclass(frozen=True)
class Config:
    """Predict the labels of new features, by the best cell of a run."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    features: tyro.conf.Positional[Path]
    """Raw features [N, d], as the run's data had them: a file, a folder of files, or a pattern in quotes."""
    name: str = data.NAMES[0]
    """Their name in the file."""
    proba: bool = False
    """The probability of each class instead of the label."""
    out: Path | None = None
    """A .csv or an .npy to write; the table is printed if not given."""


def main(args: list[str], program: str) -> int:
    """Read the command line and predict; the exit code."""
    config = tyro.cli(Config, args=args, prog=program)
    if config.run.is_file():
        raise ValueError(f"{config.run} must be a run's folder, the features come after it: got a file")
    if config.out and config.out.suffix not in (".csv", ".npy"):
        raise ValueError(f"--out must end in .csv or .npy, got {config.out}")
    if config.out and config.out.resolve() in [path.resolve() for path in data.matching(config.features)]:
        raise ValueError(f"--out must be another file than the features, got {config.out}")
    run = record.read(config.run)
    best = run.best
    if best is None:
        raise ValueError(f"{config.run} holds no weights: every cell diverged")
    about = run.record["data"]
    X = data.load_features(config.features, name=config.name, columns=about.get("feature_names", ()))
    names, unit_length = np.array(about["classes"]), about.get("unit_length", False)
    if X.shape[1] != (width := len(best["mean"])):
        raise ValueError(f"{config.features} must have the {width} features of the run, got {X.shape[1]}")

    def blocks() -> Iterator[NDArray]:
        """Labels, ``[M]``, or probabilities, ``[M, C]``, of some examples after another."""
        for first in range(0, len(X), BLOCK):
            some = X[first : first + BLOCK]
            with checks.about(config.features):
                data.check_finite(some, whole=X, first=first)
            scores = logits(best, data.unit_length(some) if unit_length else some)
            yield softmax(scores, axis=1) if config.proba else names[scores.argmax(axis=1)]

    header = names.tolist() if config.proba else ["label"]
    if config.out is None:
        write_csv(sys.stdout, blocks(), header)
        return 0
    with folder.replacing(config.out) as partial:
        if config.out.suffix == ".npy":
            write_npy(partial, blocks(), len(X))
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                write_csv(file, blocks(), header)
    return 0


def logits(best: dict[str, NDArray], X: NDArray) -> NDArray[np.floating]:
    """The logits of raw features, ``[N, C]``, from the arrays of ``best.safetensors``."""
    X = (X - best["mean"]) / best["scale"]
    if "W" in best:
        return X @ best["W"][:-1] + best["W"][-1]
    if "W1" in best:
        return np.maximum(X @ best["W1"] + best["b1"], 0) @ best["W2"] + best["b2"]
    raise ValueError(f"the run must have trained a linear model or a two-layer net, its arrays are {', '.join(best)}")


def write_npy(path: Path, blocks: Iterable[NDArray], num_examples: int) -> None:
    """Write one array of as many examples, block after block."""
    answer, first = None, 0
    for block in blocks:
        if answer is None:
            shape = num_examples, *block.shape[1:]
            answer = np.lib.format.open_memmap(path, "w+", block.dtype, shape)
        answer[first : first + len(block)] = block
        first += len(block)
    assert answer is not None
    answer.flush()


def write_csv(file: TextIO, blocks: Iterable[NDArray], header: Sequence[str]) -> None:
    """Write labels, one per line, or probabilities, as CSV."""
    writer, blocks = csv.writer(file, lineterminator="\n"), iter(blocks)
    first = next(blocks)  # before the header, as it may raise an error
    writer.writerow(header)
    for block in itertools.chain([first], blocks):
        writer.writerows(block.reshape(len(block), -1).tolist())
