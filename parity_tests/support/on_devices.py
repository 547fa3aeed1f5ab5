"""One process of a sweep split over CPU devices: ``on_devices.py OUT MODEL DEVICES [PROCESS PROCESSES PORT]``.

Prints nothing; the first process writes ``OUT``, an .npz of what the sweep found on all devices, resumed
from its middle there, and on one.
"""

import copy
import os
import sys

import numpy as np

GRID = {"lr": [0.1, 0.3, 1.0], "reg": [0.0, 1e-3, 1e-2], "seed": [0, 7]}  # 9 cells a replicate: 8 do not divide them
STEPS = 101  # of 25 an epoch: chunks of two lengths, 1 and 25


def main(out: str, model: str, devices: int, process: int = 0, processes: int = 1, port: int = 0) -> None:
    """Train on all devices, and on the first."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    import jax

    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    from jaxcls import data, sweep
    from jaxcls.classifier import linear, two_layer_net
    from jaxcls.grid import Grid

    assert len(jax.devices()) == devices * processes
    splits = data.standard(data.load_digits())
    net = model == "net"
    run = lambda **options: sweep.run(  # noqa: E731
        splits,
        Grid(**GRID, hidden=[5, 20] if net else ()),
        steps=STEPS,
        batch_size=50,
        classifier=two_layer_net(init_scale=0.1) if net else linear(),
        history=True,
        halving=sweep.Halving(rungs=(26, 51)) if model == "halved" else None,
        **options,
    )
    taken: list[sweep.Snapshot] = []
    split = run(devices=jax.devices(), save=lambda take: taken.append(copy.deepcopy(take())))
    resumed = run(devices=jax.devices(), resume=taken[len(taken) // 2])
    if process == 0:
        one = run()
        found = {}
        for name, result in (("split", split), ("resumed", resumed), ("one", one)):
            found[f"{name}_losses"] = result.losses
            found[f"{name}_table"] = result.table
            found[f"{name}_val"] = result.history.val_accuracy
            found[f"{name}_test"] = result.test_accuracy
        np.savez(out, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
