"""Scaling of step time and memory with the grid, the batch, D, C and H: JSON and a plot.

python benchmarks/growth.py     # five minutes on two cores
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure
from run import HERE, measure_sizes, slug, write
from workloads import Workload

from jaxcls.artifacts import folder, record

BASE = Workload(100, 3073, 10, 200, 10_000, 1500)
NET = Workload(8, 3072, 10, 500, 10_000, 1500, num_hidden=128)
AXES = {
    "cells": (BASE, (1, 3, 10, 30, 100, 300, 1000)),
    "batch_size": (BASE, (25, 50, 100, 200, 400, 800, 1600)),
    "num_features": (BASE, (49, 193, 769, 3073, 6145)),
    "num_classes": (BASE._replace(cells=10), (2, 10, 100, 1000)),
    "num_hidden": (NET, (8, 32, 128, 512)),
}


@dataclass(frozen=True)
class Config:
    """Measure the scaling of jaxcls."""

    seconds: float = 1.0
    """Seconds of timing per point."""
    out: Path = HERE / "results"
    """Folder for growth-DEVICE.json and growth-DEVICE.png."""


def main(config: Config) -> int:
    """Measure every point; return the exit code."""
    measured = {**record.machine(), "versions": record.versions(), "axes": {}}
    for axis, (base, values) in AXES.items():
        points = [measure_sizes(base._replace(**{axis: value}), "jaxcls", config.seconds) for value in values]
        measured["axes"][axis] = [{axis: value} | point for value, point in zip(values, points, strict=True)]
        for value, point in zip(values, points, strict=True):
            step_s = point["seconds_per_cell_step"] * point["cells_run"]
            print(f"{axis:>13} {value:6d} {step_s * 1e3:10.3f} ms a step {point['peak_bytes'] / 1e6:8.0f} MB")
    path = config.out / f"growth-{slug()}.json"
    write(measured, path)
    with folder.replacing(path.with_suffix(".png")) as partial:
        draw(measured).savefig(partial, dpi=120)
    return 0


def draw(measured: dict) -> Figure:
    """Plot step time (above) and memory (below) against each axis; the dotted line is proportional."""
    figure = Figure(figsize=(3 * len(AXES), 5.5), layout="constrained")
    rows = figure.subplots(2, len(AXES), sharex="col", sharey="row")
    for column, (axis, points) in enumerate(measured["axes"].items()):
        values = [point[axis] for point in points]
        times = [1e3 * point["seconds_per_cell_step"] * point["cells_run"] for point in points]
        time, memory = rows[0, column], rows[1, column]
        time.loglog(values, times, "o-")
        time.loglog(values, [times[-1] * value / values[-1] for value in values], ":", color="0.6")
        memory.semilogx(values, [point["peak_bytes"] / 1e6 for point in points], "o-", color="tab:orange")
        memory.set_xlabel(axis.replace("num_", "").replace("_", " "))
    rows[0, 0].set_ylabel("ms a step")
    rows[1, 0].set_ylabel("peak MB")
    rows[1, 0].set_ylim(bottom=0)
    figure.suptitle(f"{measured['device']}, {measured['processor']}")
    return figure


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
