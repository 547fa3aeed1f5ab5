"""Parts shared by the commands: exit codes, and the lines printed for a run."""

import contextlib
import io
import itertools
import os
import re
import shlex
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax

import jaxcls
from jaxcls.artifacts import record
from jaxcls.data import Splits
from jaxcls.grid import edge
from jaxcls.metrics import Metric
from jaxcls.result import SweepResult, Timings
from jaxcls.table import edges, tied

if TYPE_CHECKING:
    from typing_extensions import Buffer


INDENT = " " * 10  # of a line without a head


def run(command: Callable[[], int]) -> int:
    """The exit code of a command: 2 and one line for an error, 130 and one line for Ctrl-C.

    A closed pipe, as after ``| head``, ends the printing alone.
    """
    out = sys.__stdout__
    if out is not None and out is sys.stdout:
        raw = io.BufferedWriter(_UntilClosed(out.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(raw, out.encoding, out.errors, line_buffering=out.isatty())
    try:
        return command()
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: stopped at once", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(128 + signal.SIGINT)  # an orderly exit would crash in a computation that is still going on


class _UntilClosed(io.FileIO):
    """Standard output that drops what its reader, as ``head``, no longer reads."""

    def write(self, data: "Buffer") -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return memoryview(data).nbytes


def output(run: Callable[[], tuple[int, Path]], *, quiet: bool, json: bool) -> int:
    """The exit code of ``run``, which returns it with the run's folder.

    Args:
      run: the work of a command.
      quiet: print nothing.
      json: print ``run.json`` alone, at the end.
    """
    with contextlib.redirect_stdout(io.StringIO()) if quiet or json else contextlib.nullcontext():
        code, folder = run()
    if json and jax.process_index() == 0 and (folder / "run.json").exists():
        print((folder / "run.json").read_text("utf-8"), end="")
    return code


def number_of_bytes(text: str | None) -> int | None:
    """A number of bytes from ``4GB``, ``1.5 GiB`` or ``800000``.

    Raises:
      ValueError: it is none of these.

    Example:
      >>> number_of_bytes("4GB"), number_of_bytes("1.5 GiB"), number_of_bytes(None)
      (4000000000, 1610612736, None)
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+\.?\d*)\s*([kmgt]?)(i?)b?", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"--memory must be a number of bytes, as 4GB or 500MB, got {text}")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** "_kmgt".index(prefix.lower() or "_"))


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


def say_stopping() -> None:
    """Print that a signal was heard, on standard error: without a buffer, as its handler must."""
    os.write(2, b"\nstopping after this chunk; once more to stop at once\n")


def counted(number: int, what: str) -> str:
    """A number of things.

    Example:
      >>> counted(1, "cell"), counted(1000, "cell")
      ('1 cell', '1,000 cells')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def print_data(splits: Splits, roles: Sequence[str], more: str = "") -> None:
    """Print the versions, the device and the data of these roles; ``more`` ends the last line."""
    sizes = ", ".join(f"{len(split.y):,} {role}" for role, split in splits.items() if role in roles)
    print(f"jaxcls    {jaxcls.__version__} with jax {jax.__version__}, on {record.device()}")
    print(f"data      {splits.name}: {sizes} examples")
    print(f"          {splits.num_features:,} features, {splits.num_classes} classes{more}")


def print_scored(result: SweepResult, splits: Splits) -> None:
    """Print on how much of train the cells were scored, if not on all."""
    if result.num_scored < len(splits.train.y):
        print(f"train acc is over {result.num_scored:,} of {len(splits.train.y):,} examples, at random")


def print_ties(result: SweepResult, splits: Splits) -> None:
    """Print how many cells have the best accuracy on val, if there are several."""
    if (count := len(tied(result.table, result.select))) > 1 and result.chosen is None:
        score = "log loss" if result.select == "log-loss" else "F1" if result.select == "macro-f1" else "accuracy"
        print(f"          {count} cells tie at this {score}: {len(splits.val.y):,} examples cannot tell them")
        print("          apart, so the lowest validation loss decides")


def print_one_se(result: SweepResult, splits: Splits) -> None:
    """Print how many cells are within one standard error of the highest accuracy."""
    if (count := int(result.within_one_se.sum())) > 1:
        print(f"          {count} cells are within one standard error of the highest, on the")
        print(f"          same {len(splits.val.y):,} examples", end="")
        print("; the simplest of them was chosen" if result.chosen is not None else "")


def print_metrics(scored: Mapping[str, Metric], name: str = "") -> None:
    """Print the metrics of the best cell on a test set, with their 95 % intervals."""
    print(f"test      {name or 'scored once'}, with 95% intervals")
    for metric, (value, low, high) in scored.items():
        print(f"          {metric.replace('_', ' '):<18} {value:.4f}  {low:.4f} to {high:.4f}")


def print_times(timings: Timings, seconds: Mapping[str, float]) -> None:
    """Print where the time went: ``all`` of it, to read the ``data``, and to ``write``, beside a result's timings."""
    compiled, trained, scored, _ = timings
    print(f"time      {seconds['all']:.1f} s: data {seconds['data']:.1f}, compile {compiled:.1f}, ", end="")
    print(f"train {trained:.1f}, evaluate {scored:.1f}, write {seconds['write']:.1f}")


def print_edges(result: SweepResult, scale: Mapping[str, float] = {}) -> None:
    """Print the axes on whose boundary the best cell lies, each with values to try next, by a scale for a flag."""
    if result.chosen is not None:  # the simplest of many, which more values would not make better
        return
    for axis, values in edges(result.grid, result.table, result.select).items():
        print(f"edge      {edge(axis, values)}")
        print(f"          --{axis.replace('_', '-')} {' '.join(f'{scale.get(axis, 1) * value:g}' for value in values)}")


def print_wrote(paths: Sequence[Path]) -> None:
    """Print a run's folder, its files and its pictures."""
    print(f"wrote     {paths[0].parent}/")
    for pictures in (False, True):
        names = ", ".join(path.name for path in paths if (path.suffix == ".png") == pictures)
        print(textwrap.fill(names, 80, initial_indent=INDENT, subsequent_indent=INDENT))


def print_prediction(folder: Path, result: SweepResult) -> None:
    """Print the command that predicts, and lines that predict without jaxcls."""
    print(f"\nTo predict labels: jaxcls predict {shlex.quote(str(folder))} FEATURES")
    print("In numpy or JAX, of raw features X [N, d] (in torch, torchref.load does it):\n")
    print(
        record.reload_lines(
            folder / "best.safetensors", "numpy", result.params, result.class_names, unit_length=result.unit_length
        )
    )
