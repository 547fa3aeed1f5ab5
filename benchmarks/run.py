"""Time jaxcls against everything that a user might run instead, and against the machine's own limit.

python benchmarks/run.py                                   # all of it, a quarter of an hour on two cores
python benchmarks/run.py --repeats 3 --workloads digits --peers jaxcls "torch by hand"

Every pair of workload and peer runs in a process of its own: first a check that it trains as numpy does in
float64, then rounds of steps, then the machine's best matrix product. What a figure means is in its name: times are
medians over the rounds, compilation is apart.
"""

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import tyro
from workloads import WORKLOADS, Workload

from jaxcls.artifacts import record
from jaxcls.artifacts.folder import replacing

HERE = Path(__file__).parent
DEVICE_A_CORE = "jaxcls, one device per core"  # the host's processor seen as several; a GPU stays one
NAMES = (  # as in peers.py, which takes seconds to import
    "numpy float64",
    "numpy float32",
    "torch nn, autograd",
    "torch by hand",
    "torch.func.vmap",
    "torch.func.vmap, compiled",
    "torch wide, in place",
    "jax.jit, a loop",
    "jax.jit(vmap), cells first",
    "jaxcls",
    DEVICE_A_CORE,
)
COLUMNS = {"": 26, "us a step": 9, "ratio": 7, "sweep s": 8, "compile": 7, "GF/s": 5, "of": 4, "MB": 6}
ON_GPU_ONLY = ("grid-10000",)


@dataclass(frozen=True)
class Config:
    """Time jaxcls against its peers."""

    workloads: tuple[str, ...] = tuple(name for name in WORKLOADS if name not in ON_GPU_ONLY)
    """Which sweeps; on a GPU, grid-10000 too."""
    peers: tuple[str, ...] = NAMES
    """Which ways to train them."""
    precision: str = "highest"
    """Of JAX's matrix products: highest, tensorfloat32, BF16_BF16_F32_X3; on a CPU all are float32."""
    seconds: float = 3.0
    """How long a pair is timed."""
    repeats: int = 1
    """How often the peers are gone through, in turn; the figures are those of each one's median process."""
    out: Path | None = None
    """The JSON file; benchmarks/results/DEVICE-DATE.json if not given."""


def main(config: Config) -> int:
    """Run the suite; the exit code."""
    unknown = [name for name in config.workloads if name not in WORKLOADS]
    unknown += [name for name in config.peers if name not in NAMES]
    if unknown:
        raise ValueError(f"workloads and peers must be among {[*WORKLOADS]} and {[*NAMES]}, got {unknown}")
    measured: dict[str, Any] = {
        "date": date.today().isoformat(),
        **record.machine(),
        "precision": config.precision,
        "versions": record.versions() | {"torch": metadata.version("torch")},
        "workloads": {},
    }
    print(f"{measured['device']}, {measured['processor']}, {measured['precision']} precision")
    path = config.out or HERE / "results" / f"{slug()}-{measured['date']}.json"
    for name in config.workloads:
        measured["workloads"][name] = compare(name, config)
        write(measured, path)  # after each: a run cut short keeps what it has
    return 0


def compare(name: str, config: Config) -> dict[str, Any]:
    """Time the peers on one workload, and print a line for each."""
    workload = WORKLOADS[name]
    hidden = f", H {workload.num_hidden}" if workload.num_hidden else ""
    print(f"\n{name}: {workload.cells:,} cells, {workload.steps:,} steps of {workload.batch_size} examples; ", end="")
    print(f"D {workload.num_features:,}{hidden}, C {workload.num_classes}")
    gflop, megabytes = workload.flops * workload.cells / 1e9, workload.bytes / 1e6
    print(f"a step of all cells: {gflop:.3g} GFLOP, {megabytes:.3g} MB at least")
    print(" ".join(f"{title:>{width}}" for title, width in COLUMNS.items()))
    rounds = [
        [measure_sizes(workload, peer, config.seconds, config.precision) for peer in config.peers]
        for _ in range(config.repeats)
    ]
    rows = {peer: middle(runs) for peer, *runs in zip(config.peers, *rounds, strict=True)}
    ours = rows.get("jaxcls", {}).get("seconds_per_cell_step")
    for peer, row in rows.items():
        if "unavailable" in row:
            print(f"{peer:>26} {row['unavailable']}")
            continue
        row["gflops"] = workload.flops / row["seconds_per_cell_step"] / 1e9
        row["of_matmul"] = row["gflops"] / row["matmul_gflops"]
        row["of_copy"] = workload.bytes / workload.cells / row["seconds_per_cell_step"] / row["copy_gbytes"] / 1e9
        row["ratio"] = row["seconds_per_cell_step"] / ours if ours else math.nan
        print(
            f"{peer:>26} {row['seconds_per_cell_step'] * 1e6:9.2f} {row['ratio']:7.2f} {row['sweep_s']:8.1f} "
            f"{row['compile_s']:7.1f} {row['gflops']:5.0f} {row['of_matmul']:4.0%} {row['peak_bytes'] / 1e6:6.0f}"
        )
    return rows


def measure_sizes(workload: Workload, peer: str, seconds: float, precision: str = "highest") -> dict[str, Any]:
    """Time one pair in a process of its own."""
    sizes = json.dumps(workload._asdict())
    command = [sys.executable, str(HERE / "measure.py"), sizes, peer, str(seconds), precision]
    devices = {"JAX_NUM_CPU_DEVICES": str(os.cpu_count())} if peer == DEVICE_A_CORE else {}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | devices)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        return {"unavailable": f"failed: {lines[-1][:90]}"}
    return json.loads(done.stdout.splitlines()[-1])


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run of median time, and the times of all."""
    times = [run.get("seconds_per_cell_step", 0.0) for run in runs]
    return runs[times.index(statistics.median_low(times))] | {"all_runs": times}


def write(measured: dict[str, Any], path: Path) -> None:
    """Write a measured as JSON, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"\nwrote {path}")


def slug() -> str:
    """The device, as a part of a file's name."""
    return "-".join(record.device().lower().replace("(", "").replace(")", "").split())


def command(main: Callable[[Any], int], config: type, description: str | None) -> int:
    """Run ``main`` with what the command line says; the exit code."""
    try:
        return main(tyro.cli(config, description=description))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(command(main, Config, __doc__))
