"""The courses' published result tables, reproduced by the command line's presets on all of CIFAR-10."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity_tests.support import compare

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def sweep(preset: str, out: Path, cifar10_dir: str | None, *args: str) -> tuple[np.ndarray, dict]:
    """The table and the record of one run of ``examples/sweep.py``."""
    command = [sys.executable, str(HERE.parent / "examples" / "sweep.py"), "--preset", preset, "--out", str(out), *args]
    command += ["--data-dir", cifar10_dir] if cifar10_dir else []
    subprocess.run(command, check=True, timeout=1800)
    return compare.read(out / "results.csv"), json.loads((out / "run.json").read_text())


def mean_absolute(table: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference of train and of validation accuracy over the grid, of the mean over seeds."""
    found = compare.differences(table)
    return tuple(np.abs(found[name].mean(axis=1)).mean() for name in compare.ACCURACIES)


def test_the_hundred_cells_of_cs231n(cifar10_dir: str | None, tmp_path: Path) -> None:
    """One seed moves the whole table, as all its cells see the same minibatches; the published table drew for each.

    So the preset's own seed, 2, comes near, and the mean over seeds no less.
    """
    table, record = sweep("cs231n", tmp_path / "run", cifar10_dir, "--seeds", "0", "1", "2", "3")
    assert len(table) == 400
    own = table[table["seed"] == 2]
    assert own["val_accuracy"].max() >= 0.345
    assert record["best"]["val_accuracy"] >= 0.345
    for of_seeds in (own, table):
        train, val = mean_absolute(of_seeds)
        assert train <= 0.008
        assert val <= 0.010


def test_the_default_net_of_cs231n(cifar10_dir: str | None, tmp_path: Path) -> None:
    table, _ = sweep("cs231n-net", tmp_path / "run", cifar10_dir)
    assert table["val_accuracy"] == pytest.approx(0.287, abs=0.01)


# The three experiments in a third of the published steps; docs/published.md has all of them.
THIRD = ["--steps", "1000"]


def test_larger_nets_of_eecs498_are_better(cifar10_dir: str | None, tmp_path: Path) -> None:
    table, _ = sweep("eecs498-net-hidden", tmp_path / "run", cifar10_dir, *THIRD)
    two, eight, thirty_two, all_ = table["val_accuracy"]
    assert 0.2 < two < eight - 0.04 < thirty_two - 0.05 < all_


def test_the_strongest_penalty_of_eecs498_is_far_below_the_rest(cifar10_dir: str | None, tmp_path: Path) -> None:
    table, _ = sweep("eecs498-net-reg", tmp_path / "run", cifar10_dir, *THIRD)
    *rest, strongest = table["val_accuracy"]
    assert min(rest) > 0.48
    assert strongest < 0.35


def test_the_learning_rates_of_eecs498(cifar10_dir: str | None, tmp_path: Path) -> None:
    table, record = sweep("eecs498-net-lr", tmp_path / "run", cifar10_dir, *THIRD)
    lowest, low, one, hundred = table["val_accuracy"]
    assert lowest < 0.12
    assert low < 0.2
    assert one > 0.48
    assert np.isnan(hundred)
    assert [cell["lr"] for cell in record["diverged"]] == [100.0]


def test_the_twenty_five_cells_of_eecs498(cifar10_dir: str | None, tmp_path: Path) -> None:
    table, record = sweep("eecs498", tmp_path / "run", cifar10_dir)
    train, val = mean_absolute(table)
    assert train <= 0.004
    assert val <= 0.005
    assert record["best"]["test_accuracy"] >= 0.385
