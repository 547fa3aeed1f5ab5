"""Features and labels of the user, from files or from arrays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxcls.data import files
from jaxcls.data.labels import SHOWN, numbered
from jaxcls.data.source import Source, hold_out
from jaxcls.data.splits import check_examples
from jaxcls.numerics import checks, one_line

ROLES = ("train", "val", "test")
TOO_FEW = "a class has too few examples, so {} are drawn without regard to classes"
READY = tuple(f"{array}_{role}" for role in ROLES for array in "Xy")


def load(path: str | Path, labels: str | Path | None = None, *, roles: Sequence[str] = ("val", "test")) -> Source:
    """Load features and labels from an ``.npz``, ``.safetensors`` or ``.pt``, or from a file each.

    One file holds ``X, y``, split here by class, or ready splits, ``X_train, y_train, X_val, y_val, X_test, y_test``.
    Of two, the first holds X or a single array, also as ``.npy``; ``labels`` y or a single array, also as ``.npy``,
    ``.txt`` with a label a line, or ``.csv`` with a column ``label``.
    ``X`` is ``[N, d]`` of any real dtype. ``y`` is ``[N]``, integers or text; classes are numbered in sorted order and
    keep their labels as names. Arrays of Python objects are never read.

    Args:
      path: the file.
      labels: the file of the labels, if that is another one.
      roles: the splits to hold out of ``X, y``; without any, all rows are train. Ready splits stay as they are.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a file is of another kind, or damaged, or lacks these arrays, or their shapes do not match.
      TypeError: features are not real numbers, or labels are neither integers nor text.

    Example:
      >>> import numpy as np, tempfile
      >>> folder = tempfile.mkdtemp()
      >>> np.save(folder + "/features.npy", np.eye(20))
      >>> np.save(folder + "/labels.npy", np.arange(20) % 2)
      >>> source = load(folder + "/features.npy", folder + "/labels.npy")
      >>> len(source.train), len(source.val), len(source.test)
      (14, 3, 3)
    """
    path = Path(path)
    if labels is not None:
        X, y = _one(path, "X"), _one(Path(labels), "y")
        with checks.about(path, labels):
            return _split(path.stem, X, y, roles, f"{path}: ")
    held, arrays = files.read(path, "X and y", lambda names: [name for name in ("X", "y", *READY) if name in names])
    if {"X", "y"} <= arrays.keys():
        with checks.about(path):
            return _split(path.stem, arrays["X"], arrays["y"], roles, f"{path}: ")
    if not set(READY) <= arrays.keys():
        either = f"X and y, or {', '.join(READY)}, or come with a file of labels"
        raise ValueError(f"{path} must hold {either}; it holds {_names(held)}")
    numbers, names, note = numbered([arrays[f"y_{role}"] for role in ROLES])
    pairs = list(zip([arrays[f"X_{role}"] for role in ROLES], numbers, strict=True))
    with checks.about(path):
        for role, (X, y) in zip(ROLES, pairs, strict=True):
            check_examples(X, y, f"X_{role}", f"y_{role}")
            _check_not_negative(y, f"y_{role}")
        if len(widths := {X.shape[1] for X, _ in pairs}) > 1:
            raise ValueError(f"X_train, X_val and X_test must be of one width, got {sorted(widths)}")
    X, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    ends = np.cumsum([len(X) for X, _ in pairs])
    rows = np.split(np.arange(len(X)), ends[:-1])
    if len(absent := np.setdiff1d(np.arange(len(names)), numbers[0])):
        note = _and(note, f"train has no example of {', '.join(names[k] for k in absent[:SHOWN])}")
    return _source(path.stem, X, y, names, rows, note, f"{path}: ")


def from_arrays(X: NDArray, y: NDArray, *, name: str = "arrays") -> Source:
    """Take features and labels from arrays, split by class.

    Args:
      X: features, ``[N, d]``, of any real dtype.
      y: labels, ``[N]``, integers or text, as in `load`.
      name: name of the data in a run's record.

    Raises:
      ValueError: their lengths do not match, or there are too few examples.
      TypeError: features are not real numbers, or labels are neither integers nor text.

    Example:
      >>> import numpy as np
      >>> from jaxcls import data
      >>> splits = data.standard(from_arrays(np.eye(20), np.arange(20) % 2))
      >>> len(splits.train.y), len(splits.val.y), len(splits.test.y)
      (14, 3, 3)
    """
    if not hasattr(X, "toarray"):  # the check rejects sparse matrices, and masked arrays
        X = np.asanyarray(X)
    y = np.asanyarray(y)
    if y.dtype == object and all(isinstance(label, str) for label in y.flat):  # a column of a data frame
        y = y.astype(str)
    return _split(name, X, y, ("val", "test"))


def load_features(path: str | Path) -> NDArray:
    """Load features alone, ``[N, d]`` of any real dtype: X of a file, or its only array.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is of another kind, or damaged, or does not hold a matrix of finite numbers.
      TypeError: features are not real numbers.

    Example:
      >>> import numpy as np, tempfile
      >>> path = tempfile.mkdtemp() + "/features.npy"
      >>> np.save(path, np.eye(3))
      >>> load_features(path).shape
      (3, 3)
    """
    X = _one(Path(path), "X")
    with checks.about(path):
        check_examples(X, np.zeros(len(X) if X.ndim else 0, int))
    return X


def _one(path: Path, name: str) -> NDArray:
    """The array of this name, or the only one of the file under any name but that of the other."""

    def choose(names: Sequence[str]) -> Sequence[str]:
        alone = len(names) == 1 and names[0] not in ("X", "y")
        return [name] if name in names else names if alone else []

    held, arrays = files.read(path, name, choose)
    if not arrays:
        raise ValueError(f"{path} must hold {name}, or one array; it holds {_names(held)}")
    return next(iter(arrays.values()))


def _names(held: Sequence[str]) -> str:
    """The names of a file's arrays, which can be anything, in one line."""
    return one_line(", ".join(name or "an array without a name" for name in held) or "nothing")


def _split(name: str, X: NDArray, y: NDArray, roles: Sequence[str], where: str = "") -> Source:
    """All examples, the roles held out by class."""
    (y,), names, note = numbered([y])
    check_examples(X, y)
    _check_not_negative(y, "y")
    rows, by_class = hold_out(y, roles)
    if roles and not by_class:
        note = _and(note, TOO_FEW.format(" and ".join(roles)))
    return _source(name, X, y, names, [rows.get(role, np.empty(0, int)) for role in ROLES], note, where)


def _check_not_negative(y: NDArray[np.integer], name: str) -> None:
    """Check integer labels before they number anything."""
    if y.min() < 0:
        row = int(np.argmax(y < 0))
        raise ValueError(f"{name} must hold labels not below 0, got {y[row]} at row {row}")


def _source(
    name: str,
    X: NDArray,
    y: NDArray,
    names: tuple[str, ...],
    rows: Sequence[NDArray[np.integer]],
    note: str,
    where: str,
) -> Source:
    train, val, test = rows
    return Source(name, X, y, train, val, test, names, note=f"{where}{note}" if note else "")


def _and(*notes: str) -> str:
    return "; ".join(filter(None, notes))
