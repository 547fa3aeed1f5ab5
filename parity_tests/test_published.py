"""The courses' published result tables, reproduced by the command line's presets on all of CIFAR-10."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def sweep(preset: str, out: Path, cifar10_dir: str | None, *args: str) -> tuple[np.ndarray, dict]:
    """The table and the record of one run of ``examples/sweep.py``."""
    command = [sys.executable, str(HERE.parent / "examples" / "sweep.py"), "--preset", preset, "--out", str(out), *args]
    command += ["--data-dir", cifar10_dir] if cifar10_dir else []
    subprocess.run(command, check=True, timeout=1800)
    table = np.genfromtxt(out / "results.csv", delimiter=",", names=True, dtype=None, encoding=None)
    return table, json.loads((out / "run.json").read_text())


def published(name: str) -> np.ndarray:
    return np.genfromtxt(HERE / "published" / f"{name}.csv", delimiter=",", names=True)


def differences(table: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference of train and of validation accuracy, over the grid."""
    np.testing.assert_allclose(table["lr"], expected["lr"], rtol=1e-5)
    np.testing.assert_allclose(table["reg"], expected["reg"], rtol=1e-5)
    return tuple(np.abs(table[name] - expected[name]).mean() for name in ("train_accuracy", "val_accuracy"))


def test_cs231n_s_hundred_cells(cifar10_dir: str | None, tmp_path: Path) -> None:
    table, record = sweep("cs231n", tmp_path / "run", cifar10_dir)
    train, val = differences(table, published("cs231n_softmax"))
    assert train <= 0.008
    assert val <= 0.010
    assert record["best"]["val_accuracy"] >= 0.345


def test_cs231n_s_table_is_the_mean_over_seeds(cifar10_dir: str | None, tmp_path: Path) -> None:
    """One seed moves the whole table, as all its cells see the same minibatches; the published one drew anew for each.

    So the test above says that a seed comes near; this one that nothing but the seed is between them.
    """
    table, _ = sweep("cs231n", tmp_path / "run", cifar10_dir, "--seeds", "0", "1", "2", "3")
    seeds = table.reshape(100, 4)
    mean = np.zeros(100, [("lr", "f8"), ("reg", "f8"), ("train_accuracy", "f8"), ("val_accuracy", "f8")])
    for name in mean.dtype.names:
        mean[name] = seeds[name].mean(axis=1)
    train, val = differences(mean, published("cs231n_softmax"))
    assert train <= 0.008
    assert val <= 0.010


def test_eecs498_s_twenty_five_cells(cifar10_dir: str | None, tmp_path: Path) -> None:
    table, record = sweep("eecs498", tmp_path / "run", cifar10_dir)
    train, val = differences(table, published("eecs498_hw4_softmax"))
    assert train <= 0.004
    assert val <= 0.005
    assert record["best"]["test_accuracy"] >= 0.385
