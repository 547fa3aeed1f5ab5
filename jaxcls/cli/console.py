"""Parts shared by the commands: exit codes, and the lines printed for a run."""

import itertools
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

import jaxcls
from jaxcls.artifacts import record
from jaxcls.data import Splits
from jaxcls.grid import edge
from jaxcls.result import SweepResult


def run(command: Callable[[], int]) -> int:
    """The exit code of a command: 2 and one line for an error, 130 and one line for Ctrl-C.

    A closed pipe, as after ``| head``, ends it silently.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        return 128 + 13  # SIGPIPE
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: stopped at once", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(128 + signal.SIGINT)  # an orderly exit would crash in a computation that is still going on


def script(main: Callable[[list[str], str], int]) -> int:
    """`run` for a script, under the name by which it was called."""
    return run(lambda: main(sys.argv[1:], f"python {shlex.quote(sys.argv[0])}"))


def without_commas(args: list[str]) -> list[str]:
    """The arguments of a command line.

    Raises:
      ValueError: numbers are separated by commas.
    """
    for arg in args:
        if re.fullmatch(r"[\d.eE+-]+(,[\d.eE+-]+)+,?", arg):
            raise ValueError(f"numbers must be separated by spaces, {' '.join(arg.split(','))}, got {arg}")
    return args


def run_folder(name: str) -> Path:
    """``runs/NAME-DATE-TIME``, numbered if there is one of the same second.

    Example:
      >>> run_folder("digits").name.startswith("digits-20")
      True
    """
    first = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    numbered = (first.with_name(f"{first.name}-{k}") for k in itertools.count(2))
    return next(path for path in itertools.chain([first], numbered) if not path.exists())


def paragraphs(text: str | None) -> str:
    """A module's docstring with each line a paragraph, so that tyro keeps its lines.

    Example:
      >>> paragraphs("One.\\n\\ntwo\\nthree\\n")
      'One.\\n\\ntwo\\n\\nthree'
    """
    return "\n\n".join(filter(None, (text or "").splitlines()))


def note(text: str) -> None:
    """Print a note for the user, on standard error."""
    print(f"note: {text}", file=sys.stderr)


def print_data(splits: Splits, roles: Sequence[str], more: str = "") -> None:
    """Print the versions, the device and the data of these roles; ``more`` ends the last line."""
    sizes = ", ".join(f"{len(split.y):,} {role}" for role, split in splits.items() if role in roles)
    print(f"jaxcls    {jaxcls.__version__} with jax {jax.__version__}, on {record.device()}")
    print(f"data      {splits.name}: {sizes} examples")
    print(f"          {splits.num_features:,} features, {splits.num_classes} classes{more}")


def print_edges(result: SweepResult, best: int) -> None:
    """Print the axes on whose boundary the best cell lies, each with values to try next."""
    for axis, values in result.grid.beyond(best).items():
        print(f"edge      {edge(axis, values)}")
        print(f"          --{axis} {' '.join(f'{value:g}' for value in values)}")


def print_wrote(paths: Sequence[Path]) -> None:
    """Print a run's folder, its files and its pictures."""
    print(f"wrote     {paths[0].parent}/")
    for pictures in (False, True):
        print(f"          {', '.join(path.name for path in paths if (path.suffix == '.png') == pictures)}")


def print_prediction(folder: Path, result: SweepResult) -> None:
    """Print the command that predicts, and lines that predict without jaxcls."""
    print(f"\nTo predict labels: jaxcls predict {shlex.quote(str(folder))} FEATURES")
    print("or y for raw features X [N, d], in numpy or JAX; in torch: torchref.load\n")
    print(record.reload_lines(folder / "best.safetensors", "numpy", result.params, result.class_names))
