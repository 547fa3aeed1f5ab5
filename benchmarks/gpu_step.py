"""Count the kernels of a training step on a GPU, and the bytes that each reads and writes; needs no GPU.

pip install jax-cuda13-plugin      # XLA's compiler for NVIDIA GPUs; needs no driver and no CUDA
python benchmarks/gpu_step.py
python benchmarks/gpu_step.py --workloads grid-1000 --alignment 1

XLA compiles a sweep's training loop for an NVIDIA H200, and this program parses the optimised HLO. The figures are
counts, not times: nothing runs. On a GPU, XLA autotunes each product over several kernels; here it takes the first.

Install the plugin in a separate environment: with it, JAX looks for a GPU at every start.
"""

import math
import os
import re
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from run import command
from workloads import WORKLOADS, Workload

from jaxcls import classifier
from jaxcls.engine import BY_CELL, CELLS, EVERYWHERE, cells, devices, program
from jaxcls.train import Hyper

STEPS = 100
H200 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
runtime_version { major: 13 }
dnn_version_info { major: 9 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000
  device_memory_size: 150000000000
  l2_cache_size: 62914560
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
"""
BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1}  # a product's workspace, s8, is not counted
NO_KERNEL = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element")


@dataclass(frozen=True)
class Config:
    """Count a step's kernels and bytes."""

    workloads: tuple[str, ...] = ("cs231n", "grid-1000", "two-layer", "probe", "digits")
    """Names of workloads in run.py."""
    precision: str = "highest"
    """Precision of matrix products: highest, tensorfloat32, BF16_BF16_F32_X3."""
    alignment: int = 0
    """Pad the features with zeros to a multiple of this; 0: the padding of a sweep on a GPU."""


class Kernel(NamedTuple):
    """A kernel and the bytes that it reads and writes."""

    name: str
    read: int
    written: int


def main(config: Config) -> int:
    """Print the kernels of every workload; return the exit code."""
    if unknown := [name for name in config.workloads if name not in WORKLOADS]:
        raise ValueError(f"workloads must be among {[*WORKLOADS]}, got {unknown}")
    try:
        (device,) = topologies.get_topology_desc(platform="cuda", target_config=H200, topology="1x1x1").devices
    except NotImplementedError:
        raise ValueError("XLA's compiler for NVIDIA GPUs must be installed: pip install jax-cuda13-plugin") from None
    print(f"jax {jax.__version__}, {device.device_kind}, {config.precision} precision")
    alignment = config.alignment or devices.alignment([device])
    for name in config.workloads:
        workload = WORKLOADS[name]
        with jax.default_matmul_precision(config.precision):
            found = kernels(compiled(workload, device, alignment))
        weights = workload.weight_bytes
        print(f"\n{name}: a step of {workload.cells:,} cells, whose weights are {weights / 1e6:.4g} MB")
        print(f"{'MB':>45} {'read':>9} {'written':>9}")
        for kernel in found:
            print(f"{kernel.name:>45} {kernel.read / 1e6:9.2f} {kernel.written / 1e6:9.2f}")
        total = sum(kernel.read + kernel.written for kernel in found)
        print(f"{len(found)} kernels, {total / 1e6:.4g} MB, {total / weights:.1f} times the weights")
    return 0


def compiled(workload: Workload, device: Any, alignment: int) -> str:
    """Optimised HLO of a sweep's chunk of training for this device."""
    on = Mesh([device], (CELLS,))
    model, hidden = classifier.LINEAR, ()
    if workload.num_hidden:
        model, hidden = classifier.two_layer_net(), (workload.num_hidden,)
    sizes = (workload.num_features, *hidden, workload.num_classes)
    # As many examples as a minibatch, none held out: the bytes of X are those of the gathered rows.
    parts = (workload.batch_size, 0)
    problem = cells.Problem(model, optax.sgd, (sizes,), jnp.dtype("float32"), parts, alignment)

    def array(shape: tuple[int, ...], spec: PartitionSpec = EVERYWHERE, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(on, spec))

    state = program.shapes(on, problem, 1, workload.cells)
    hyper = Hyper(*[array((workload.cells,), BY_CELL)] * 2)
    num_raw = workload.num_features - (not workload.num_hidden)  # without the column of ones
    examples = cells.Examples(array((workload.batch_size, num_raw)), array((workload.batch_size,), dtype=jnp.int32))
    held_out, batches = (array(shape, dtype=jnp.int32) for shape in ((1,), (STEPS, 1, workload.batch_size)))
    return program.train(on, problem).lower(state, hyper, held_out, examples, batches).compile().as_text()


def kernels(hlo: str) -> list[Kernel]:
    """Kernels in the body of the training loop."""
    (body,) = re.findall(r" while\(.*body=%([\w.-]+)", hlo)
    types: dict[str, str] = {}
    found = []
    for line in hlo[hlo.index(f"\n%{body} (") :].split("\n}")[0].splitlines():
        if instruction := re.match(r"\s+(?:ROOT )?%(\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)", line):
            name, types[name], operation, operands = instruction.groups()
            if operation not in NO_KERNEL:
                read = sum(nbytes(types[operand]) for operand in re.findall(r"%([\w.-]+)", operands))
                found.append(Kernel(name, read, nbytes(types[name])))
    return found


def nbytes(types: str) -> int:
    """Bytes of all arrays in the type of an HLO instruction."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", types)
    return sum(BYTES.get(dtype, 0) * math.prod(map(int, filter(None, shape.split(",")))) for dtype, shape in arrays)


if __name__ == "__main__":
    sys.exit(command(main, Config, __doc__))
