"""A run's folder: locked by one run at a time, its files written atomically."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

LOCK, PARTIAL = ".lock", ".partial.{}"
CHECKPOINT, RECORD = "checkpoint.safetensors", "run.json"


@contextlib.contextmanager
def claim(folder: str | Path, *, resume: bool = False) -> Iterator[Path]:
    """Lock ``folder`` for one run and create it, or lock the folder of an earlier run to resume.

    If the run fails before it writes anything, the folders created here are removed.

    Raises:
      FileExistsError: another run holds the lock, the folder is not empty and ``resume`` is False, or it is a file.
      OSError: the folder cannot be created or written.

    Example:
      >>> import tempfile
      >>> with claim(tempfile.mkdtemp() + "/run") as folder:
      ...     print(folder.name)
      run
    """
    folder = Path(folder)
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file, expected a run's folder")
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
            (folder / LOCK).unlink()  # before the release: after it, this may be the next run's lock
        lock.release()
        with contextlib.suppress(OSError):  # not empty: keep it
            for path in created:
                path.rmdir()


def check_finished(folder: str | Path) -> None:
    """Raise a ValueError if a run was interrupted in this folder, and can be resumed."""
    if (Path(folder) / CHECKPOINT).exists() and not (Path(folder) / RECORD).exists():
        raise ValueError(
            f"{folder} holds an interrupted run: --resume {folder} ends it, with the command that began it"
        )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write ``path`` atomically: yield a temporary path of the same suffix, renamed once it is complete and on disk.

    Raises:
      OSError: it cannot be written; an existing file is unchanged.

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
