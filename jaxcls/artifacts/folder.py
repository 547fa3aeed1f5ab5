"""A run's folder: taken by one run at a time, every file in it whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

LOCK, PARTIAL = ".lock", ".partial.{}"


@contextlib.contextmanager
def claim(folder: str | Path, *, resume: bool = False) -> Iterator[Path]:
    """Take ``folder`` for one run; make it, unless an earlier run left it there to resume.

    If the run fails before it has written anything, the folder goes away again.

    Raises:
      FileExistsError: another run has it now, or it holds something already and is not to be resumed.
      OSError: it cannot be made or written.

    Example:
      >>> import tempfile
      >>> with claim(tempfile.mkdtemp() + "/run") as folder:
      ...     print(folder.name)
      run
    """
    folder = Path(folder)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = filelock.FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise FileExistsError(f"{folder} is in use: another run is writing to it") from None
    except OSError as error:
        raise OSError(f"{folder} cannot be written as a run's folder: {error.strerror}") from None
    try:
        for partial in folder.glob(PARTIAL.format("*")):  # of a run that was killed
            partial.unlink()
        if not resume and (taken := next((path for path in folder.iterdir() if path.name != LOCK), None)):
            raise FileExistsError(f"{folder} must be empty to take a run, it holds {taken.name}")
        yield folder
    finally:
        with contextlib.suppress(OSError):  # the run deleted it
            (folder / LOCK).unlink()  # while it is held, or the next to take it could lose its own
        lock.release()
        with contextlib.suppress(OSError):  # not empty: there is something to keep
            for path in created:
                path.rmdir()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, of the same suffix, that takes the name ``path`` once it is written whole and on disk.

    Raises:
      OSError: it cannot be written; whatever has that name is as it was.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "results.csv"
      >>> with replacing(path) as partial:
      ...     _ = partial.write_text("lr,reg")
      ...     path.exists()
      False
      >>> path.read_text()
      'lr,reg'
    """
    partial = path.with_name(PARTIAL.format(path.name))
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
