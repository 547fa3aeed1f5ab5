"""The user's own features, from a ``.npz`` file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxcls.data.source import Source, hold_out
from jaxcls.data.splits import check_examples

ROLES = ("train", "val", "test")
READY = tuple(f"{array}_{role}" for role in ROLES for array in "Xy")


def load_npz(path: str | Path) -> Source:
    """Features and labels from an ``.npz``: ``X, y``, to be split here, or the six arrays of ready splits.

    Ready splits are ``X_train, y_train, X_val, y_val, X_test, y_test``.
    ``X`` is ``[N, d]`` of any real dtype, ``y`` is ``[N]`` integers from 0. Arrays of Python objects are never
    read.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no ``.npz``, or lacks these arrays, or they do not fit together.
      TypeError: features are not real numbers, or labels not integers.

    Example:
      >>> import numpy as np, tempfile
      >>> path = tempfile.mkdtemp() + "/features.npz"
      >>> np.savez(path, X=np.eye(20), y=np.arange(20) % 2)
      >>> source = load_npz(path)
      >>> len(source.train), len(source.val), len(source.test)
      (14, 3, 3)
    """
    path = Path(path)
    arrays = _read(path)
    if "X" in arrays:
        X, y = arrays["X"], arrays["y"]
        check_examples(X, y, f"{path}: X", "y")
        rows = hold_out(len(X))
    else:
        pairs = [(arrays[f"X_{role}"], arrays[f"y_{role}"]) for role in ROLES]
        for role, (X, y) in zip(ROLES, pairs, strict=True):
            check_examples(X, y, f"{path}: X_{role}", f"y_{role}")
        if len(widths := {X.shape[1] for X, _ in pairs}) > 1:
            raise ValueError(f"{path}: X_train, X_val and X_test must be of one width, got {sorted(widths)}")
        X, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        ends = np.cumsum([len(X) for X, _ in pairs])
        rows = np.split(np.arange(len(X)), ends[:-1])
    # Labels below 0, or seen only outside train, are for `Splits` to refuse: it knows rows and roles.
    train, val, test = rows
    num_classes = int(y[train].max()) + 1
    return Source(path.stem, X, y, train, val, test, tuple(map(str, range(num_classes))))


def _read(path: Path) -> dict[str, NDArray]:
    wanted = {"X", "y", *READY}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name in wanted}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected an .npz with X and y") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as an .npz of plain arrays: {error}") from None
    if not ({"X", "y"} <= arrays.keys() or set(READY) <= arrays.keys()):
        raise ValueError(f"{path} must hold X and y, or {', '.join(READY)}; it holds {', '.join(arrays) or 'none'}")
    return arrays
