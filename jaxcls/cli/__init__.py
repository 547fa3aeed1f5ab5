"""The command ``jaxcls``: ``sweep``, ``probe``, ``predict`` and ``report``; the only part of jaxcls that prints."""

import contextlib
import functools
import gc
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence

USAGE = """jaxcls sweep     train a whole grid of classifiers, and show what it found
jaxcls probe     the best linear classifier for your features
jaxcls predict   labels of new features, by the best cell of a run
jaxcls report    write the page of a finished run again

jaxcls COMMAND --help says more."""


def script(name: str) -> int:
    """Run a command by a script: its name in messages is the script's."""
    return main([name, *sys.argv[1:]], f"python {shlex.quote(sys.argv[0])}")


def main(args: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the command line; the exit code.

    Example:
      >>> main(["--help"]) == 0
      jaxcls sweep     train a whole grid of classifiers, and show what it found
      jaxcls probe     the best linear classifier for your features
      jaxcls predict   labels of new features, by the best cell of a run
      jaxcls report    write the page of a finished run again
      <BLANKLINE>
      jaxcls COMMAND --help says more.
      True
    """
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if args else 2
    if args[0] == "--version":
        from jaxcls import __version__

        print(f"jaxcls {__version__}")
        return 0
    name, *rest = args
    try:
        with _uncollected():
            match name:
                case "sweep":
                    from jaxcls.cli.sweep import main as command
                case "probe":
                    from jaxcls.cli.probe import main as command
                case "predict":
                    from jaxcls.cli.predict import main as command
                case "report":
                    from jaxcls.cli.report import main as command
                case _:
                    expected = "sweep, probe, predict or report"
                    print(f"error: jaxcls has no command {name}: expected {expected}", file=sys.stderr)
                    return 2
            from jaxcls.cli import console
    except ModuleNotFoundError as error:
        print(f'error: jaxcls {name} needs {error.name}: pip install "jaxcls[sweep]"', file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the imports take a second
        print("error: stopped at once", file=sys.stderr)
        return 128 + signal.SIGINT
    return console.run(functools.partial(command, rest, program or f"jaxcls {name}"))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Import without garbage collection, and leave what was imported out of it from then on: it stays to the end."""
    if "jax" in sys.modules:  # not in a process of the command's own
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
