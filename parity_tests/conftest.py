"""Strict settings for every test: shapes checked at every call, no silent rank promotion, warnings as errors."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jaxlib.version

# LLVM's first level and XLA's older emitters, which jaxlib 0.12 no longer has, compile in half the time. XLA's passes
# are the same. XLA_FLAGS from outside, be it empty, stays as it is: so .ci/full tests what users run.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1"
    + " --xla_cpu_use_fusion_emitters=false" * (jaxlib.version.__version_info__ < (0, 12)),
)

import jax
import numpy as np
import pooch
import pytest
from jax._src import lru_cache
from jaxtyping import config, install_import_hook

with install_import_hook("jaxcls", "beartype.beartype"):
    from jaxcls import *  # noqa: F403  all its modules, else each is imported when it is first used
    from jaxcls import data
    from jaxcls.data.cifar10 import MIRRORS

jax.config.update("jax_numpy_rank_promotion", "raise")

# What one test has compiled, none need compile again, in whichever worker: that is most of the time. The first process
# makes the folder, and it goes with that one; a folder that JAXCLS_TESTS_CACHE names stays, for the next run. Processes
# that tests start have another, a worker each: they write in JAX's own way, in several pieces.
CACHE = tempfile.TemporaryDirectory(prefix="jaxcls-tests-")
SHARED = os.environ.setdefault("JAXCLS_TESTS_CACHE", CACHE.name)
OF_PROCESSES = Path(CACHE.name) / "of-processes"
OF_PROCESSES.mkdir()
for place in (Path(CACHE.name), OF_PROCESSES):
    place.chmod(0o777)  # some tests give up their rights
jax.config.update("jax_compilation_cache_dir", SHARED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(OF_PROCESSES), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def put_whole(cache: lru_cache.LRUCache, key: str, value: bytes) -> None:
    """Writes an entry in one piece, for another worker may be reading; JAX only does so where it may also evict."""
    with tempfile.NamedTemporaryFile(dir=SHARED, delete=False) as file:
        file.write(value)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(Path(SHARED) / f"{key}-cache")


lru_cache.LRUCache.put = put_whole


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype]:
    """Each float dtype in turn, with 64-bit mode on for float64 alone."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def no_type_checker() -> Iterator[None]:
    """Without the type checker, so that a wrong shape or dtype meets the message a user gets."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def cifar10_dir() -> str | None:
    """The folder of CIFAR-10 that JAXCLS_CIFAR10 names; None if the user's cache has it; else the test is skipped."""
    if folder := os.environ.get("JAXCLS_CIFAR10"):
        return folder
    if any((Path(pooch.os_cache("jaxcls")) / url.rsplit("/", 1)[1]).exists() for url, _ in MIRRORS):
        return None
    pytest.skip("needs CIFAR-10: name its folder in JAXCLS_CIFAR10, or let examples/sweep.py download it")


@pytest.fixture(scope="session")
def digits() -> data.Splits:
    return data.standard(data.load_digits())
