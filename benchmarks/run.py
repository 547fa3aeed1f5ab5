"""Time jaxcls against its alternatives, and against the limits of the machine.

python benchmarks/run.py                                   # everything, 15 minutes on two cores
python benchmarks/run.py --repeats 3 --workloads digits --peers jaxcls "torch by hand"

Every pair of workload and peer runs in its own process: first a check against numpy in float64, then timed rounds of
steps, then the machine's fastest matrix product. Times are medians over the rounds and exclude compilation.
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

from jaxcls.artifacts import folder, record

HERE = Path(__file__).parent
DEVICE_A_CORE = "jaxcls, one device per core"  # splits the CPU into several devices; a GPU stays one
NAMES = (  # of peers.PEERS, which takes seconds to import
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
    """Names of workloads; on a GPU, also grid-10000."""
    peers: tuple[str, ...] = NAMES
    """Names of peers."""
    precision: str = "highest"
    """Precision of JAX's matrix products: highest, tensorfloat32, BF16_BF16_F32_X3; float32 on a CPU."""
    seconds: float = 3.0
    """Seconds of timing per pair."""
    repeats: int = 1
    """Processes per peer, the peers in turn; the figures are those of the median process."""
    out: Path | None = None
    """JSON file. Default: benchmarks/results/DEVICE-DATE.json."""


def main(config: Config) -> int:
    """Run the suite; return the exit code."""
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
        write(measured, path)  # after each, so that an interrupted run keeps its results
    return 0


def compare(name: str, config: Config) -> dict[str, Any]:
    """Time the peers on one workload; print one line for each."""
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
    """Time one pair in a separate process."""
    sizes = json.dumps(workload._asdict())
    command = [sys.executable, str(HERE / "measure.py"), sizes, peer, str(seconds), precision]
    devices = {"JAX_NUM_CPU_DEVICES": str(os.cpu_count())} if peer == DEVICE_A_CORE else {}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | devices)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        return {"unavailable": f"failed: {lines[-1][:90]}"}
    return json.loads(done.stdout.splitlines()[-1])


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run of median time, with the times of all runs."""
    times = [run.get("seconds_per_cell_step", 0.0) for run in runs]
    return runs[times.index(statistics.median_low(times))] | {"all_runs": times}


def write(measured: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON and print the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder.replacing(path) as partial:
        partial.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"\nwrote {path}")


def slug() -> str:
    """Name of the device as part of a file name."""
    return "-".join(record.device().lower().replace("(", "").replace(")", "").split())


def command(main: Callable[[Any], int], config: type, description: str | None) -> int:
    """Run ``main`` with the arguments of the command line; return the exit code."""
    try:
        return main(tyro.cli(config, description=description))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(command(main, Config, __doc__))
