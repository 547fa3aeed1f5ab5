"""Time one peer on one workload in this process: ``measure.py SIZES PEER SECONDS PRECISION``."""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from peers import LOOPS, PEERS, TORCH_DEVICE
from workloads import Workload, make, reference

CHECKED_STEPS = 5
TOLERANCE = 1e-3  # of the largest element, after five float32 steps
ROUNDS = 7
MOST_STEPS = 1000  # per round


def main(workload: Workload, peer_name: str, seconds: float, precision: str) -> dict:
    """Check and time the peer; return the figures."""
    jax.config.update("jax_default_matmul_precision", precision)
    peer = PEERS[peer_name]
    problem = make(workload)
    # The time per cell of a loop does not depend on the number of cells, so two are enough.
    cells = range(min(2, workload.cells)) if peer_name in LOOPS else range(workload.cells)
    draw = np.random.default_rng(1).integers

    def timed(batches: np.ndarray) -> float:
        start = time.perf_counter()
        trainer.run(batches)
        return time.perf_counter() - start

    trainer = peer(problem, cells)
    batches = draw(0, workload.num_examples, (CHECKED_STEPS, workload.batch_size))
    first_s = timed(batches)
    error = check(trainer.params(), [reference(problem, batches, cell) for cell in (cells[0], cells[-1])])
    round_s = timed(batches)
    compile_s = max(first_s - round_s, 0.0)

    steps = CHECKED_STEPS
    while round_s < seconds / ROUNDS / 2 and steps < MOST_STEPS:
        steps = min(MOST_STEPS, max(2 * steps, int(steps * seconds / ROUNDS / max(round_s, 1e-6))))
        batches = draw(0, workload.num_examples, (steps, workload.batch_size))
        timed(batches)  # a new number of steps recompiles
        round_s = timed(batches)
    times = [timed(batches) for _ in range(ROUNDS)]
    per_cell_step = [t / steps / len(cells) for t in times]
    median = statistics.median(per_cell_step)
    return {
        "seconds_per_cell_step": median,
        "least": min(per_cell_step),
        "most": max(per_cell_step),
        "sweep_s": median * workload.cells * workload.steps,
        "compile_s": compile_s,
        "cells_run": len(cells),
        "steps_a_round": steps,
        "error": error,
        "peak_bytes": peak_bytes(),  # before the two measurements below allocate
        "matmul_gflops": matmul_gflops(),
        "copy_gbytes": copy_gbytes(),
    }


def check(found: list, expected: list) -> float:
    """Largest difference of the first and last cell from numpy in float64, relative to the largest element."""
    error = 0.0
    for ours, theirs in zip((found[0], found[-1]), (expected[0], expected[-1]), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            error = max(error, float(np.abs(a - b).max() / np.abs(b).max()))
    if not error < TOLERANCE:
        raise SystemExit(f"error: params differ from those of numpy in float64 by {error:.1e}")
    return error


def matmul_gflops() -> float:
    """Best rate of a large square float32 product in this process, over several sizes and both libraries."""
    best = 0.0
    for n in (1024, 2048, 4096) if jax.default_backend() == "cpu" else (4096, 8192, 16384):
        A = np.random.default_rng(0).standard_normal((n, n), np.float32)
        device = jnp.asarray(A)
        product = jax.jit(lambda a: a @ a)
        tensor = torch.as_tensor(A, device=TORCH_DEVICE)
        for multiply in (
            lambda: jax.block_until_ready(product(device)),  # noqa: B023
            lambda: (tensor @ tensor)[0, 0].item(),  # noqa: B023
        ):
            best = max(best, 2 * n**3 / median_s(multiply) / 1e9)
    return best


def copy_gbytes() -> float:
    """Copy bandwidth in gigabytes per second, reads plus writes, of an array larger than any cache."""
    array = jnp.zeros(2**26, jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    return 2 * array.nbytes / median_s(lambda: copy(array).block_until_ready()) / 1e9


def median_s(work: Callable[[], object]) -> float:
    """Median seconds of seven calls, after one to warm up."""
    work()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_bytes() -> int:
    """Peak memory: on the GPU if the peer uses one, else of this process."""
    stats = jax.devices()[0].memory_stats() or {}
    on_gpu = max(torch.cuda.max_memory_allocated() if TORCH_DEVICE == "cuda" else 0, stats.get("peak_bytes_in_use", 0))
    return on_gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sizes, peer, seconds, precision = sys.argv[1:]
    print(json.dumps(main(Workload(**json.loads(sizes)), peer, float(seconds), precision)))
