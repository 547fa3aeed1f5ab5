"""The grid split over devices, in one process and in two: equal to one device, to rounding."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcls.cli import running
from parity_tests.support.cases import slow

PROGRAM = Path(__file__).parent / "support" / "on_devices.py"


def train(out: Path, model: str, devices: int, processes: int) -> dict[str, np.ndarray]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    running = [
        subprocess.Popen([sys.executable, str(PROGRAM), str(out), model, str(devices), *map(str, which)])
        for which in [(process, processes, port) for process in range(processes)]
    ]
    assert [process.wait(timeout=600) for process in running] == [0] * processes
    with np.load(out) as found:
        return dict(found)


def test_a_process_that_is_alone_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def initialize() -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"^--distributed is for one of several processes, .*: coordinator_address sh"):
        running.join_others()


SLOW = [
    pytest.param(*case, id=f"{case[0]} devices, {case[1]} processes, {case[2]}", marks=pytest.mark.slow)
    for case in (
        (2, 1, "linear"),
        (8, 1, "linear"),
        (8, 1, "net"),
        (8, 1, "halved"),
        (2, 2, "linear"),
        (2, 2, "net"),
        (2, 2, "halved"),
    )
]


@pytest.mark.parametrize(("devices", "processes", "model"), [*SLOW])
def test_split_over_devices_it_is_what_one_device_gives(
    devices: int, processes: int, model: str, tmp_path: Path
) -> None:
    found = train(tmp_path / "found.npz", model, devices, processes)
    # Not to the bit: a device's product is narrower, and the compiler adds up narrower products in another order.
    np.testing.assert_allclose(found["split_losses"], found["one_losses"], rtol=1e-4)
    for name in ("losses", "val", "test"):
        np.testing.assert_array_equal(found[f"resumed_{name}"], found[f"split_{name}"])
    for name in found["split_table"].dtype.names or ():  # a row with a NaN equals none
        np.testing.assert_array_equal(found["resumed_table"][name], found["split_table"][name])
    for name in ("lr", "reg", "seed", "diverged_at", "stopped_at"):
        np.testing.assert_array_equal(found["split_table"][name], found["one_table"][name])
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(found["split_table"][name], found["one_table"][name], rtol=1e-4)
    np.testing.assert_allclose(found["split_val"], found["one_val"], atol=1.1 / 270)
    np.testing.assert_allclose(found["split_test"], found["one_test"], atol=1.1 / 270)


@pytest.mark.parametrize("devices", [2, *slow(8)])
def test_gradients_of_sharded_examples_are_those_of_a_plain_formula(devices: int) -> None:
    command = [sys.executable, str(PROGRAM.with_name("sharded.py")), str(devices), *["eager"] * (devices > 2)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
