"""Programs of the project run in this process, which saves starting Python, importing JAX and compiling again."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import jax
from jaxtyping import config

SET_BY_COMMANDS = ("jax_default_matmul_precision", "jax_enable_x64")


def run(program: Path, *args: object, cwd: Path) -> subprocess.CompletedProcess:
    """``python PROGRAM ARGS`` in a folder: exit code, standard output and standard error."""
    argv, out, err = [str(program), *map(str, args)], io.StringIO(), io.StringIO()
    before = {name: getattr(jax.config, name) for name in SET_BY_COMMANDS}
    config.update("jaxtyping_disable", True)  # a user has no type checker between
    try:
        with (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.dict(os.environ, COLUMNS="80"),
            mock.patch.object(sys, "argv", argv),
            jax.numpy_rank_promotion("allow"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")  # no errors, as in a process of its own
            code = exit_code(program)
    finally:
        config.update("jaxtyping_disable", False)
        for name, value in before.items():
            jax.config.update(name, value)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def exit_code(program: Path) -> int:
    """The code that the script exits with."""
    try:
        runpy.run_path(str(program), run_name="__main__")
    except SystemExit as done:
        return int(done.code or 0)
    return 0
