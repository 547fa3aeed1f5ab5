"""Time of the default run from start to end, with JAX's compilation cache cold and warm.

python benchmarks/startup.py     # a minute
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from run import HERE, slug, write

from jaxcls.artifacts import record

RUNS = 5
SWEEP = HERE.parent / "examples" / "sweep.py"
IMPORT = "import time; start = time.perf_counter(); import jaxcls.sweep; print(time.perf_counter() - start)"


def main() -> int:
    """Time imports and whole runs; return the exit code."""
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(RUNS)]
    with tempfile.TemporaryDirectory() as folder:
        cold = [default_run(Path(folder) / f"cold-{k}", Path(folder) / f"cache-{k}") for k in range(RUNS)]
        default_run(Path(folder) / "first", Path(folder) / "cache")
        warm = [default_run(Path(folder) / f"warm-{k}", Path(folder) / "cache") for k in range(RUNS)]
    seconds = {"import jaxcls.sweep": imports}
    for name, runs in (("cache cold", cold), ("cache warm", warm)):
        seconds |= {f"{name}: {part}": [run[part] for run in runs] for part in runs[0]}
    measured: dict[str, Any] = {**record.machine(), "versions": record.versions()}
    for name, runs in seconds.items():
        measured[name] = {"median_s": statistics.median(runs), "runs_s": runs}
        print(f"{name:23} {statistics.median(runs):6.2f} s   ({min(runs):.2f} to {max(runs):.2f})")
    write(measured, HERE / "results" / f"startup-{slug()}.json")
    return 0


def default_run(out: Path, cache: Path) -> dict[str, float]:
    """Seconds of ``python examples/sweep.py``: the whole process, its compilation and its training."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users have the bytecode
    start = time.perf_counter()
    command = [sys.executable, str(SWEEP), "--out", str(out)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - start
    timings = json.loads((out / "run.json").read_text())["timings"]
    return {"whole": whole, "compiling": timings["compile_s"], "training": timings["run_s"]}


if __name__ == "__main__":
    sys.exit(main())
