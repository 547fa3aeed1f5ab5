"""Features and labels of the user, from an ``.npz`` file or from arrays."""

import zipfile
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from jaxcls import memory
from jaxcls.data.labels import SHOWN, numbered
from jaxcls.data.source import Source, hold_out
from jaxcls.data.splits import check_examples
from jaxcls.numerics import checks, one_line

ROLES = ("train", "val", "test")
TOO_FEW = "a class has too few examples, so {} are drawn without regard to classes"
READY = tuple(f"{array}_{role}" for role in ROLES for array in "Xy")


def load_npz(path: str | Path, *, roles: Sequence[str] = ("val", "test")) -> Source:
    """Load features and labels from an ``.npz``: ``X, y``, split here by class, or six arrays of ready splits.

    Ready splits are ``X_train, y_train, X_val, y_val, X_test, y_test``.
    ``X`` is ``[N, d]`` of any real dtype. ``y`` is ``[N]``, integers or text; classes are numbered in sorted order and
    keep their labels as names. Arrays of Python objects are never read.

    Args:
      path: the file.
      roles: the splits to hold out of ``X, y``; without any, all rows are train. Ready splits stay as they are.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not an ``.npz``, lacks these arrays, or their shapes do not match.
      TypeError: features are not real numbers, or labels are neither integers nor text.

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
        with checks.about(path):
            return _split(path.stem, arrays["X"], arrays["y"], roles, f"{path}: ")
    labels, names, note = numbered([arrays[f"y_{role}"] for role in ROLES])
    pairs = list(zip([arrays[f"X_{role}"] for role in ROLES], labels, strict=True))
    with checks.about(path):
        for role, (X, y) in zip(ROLES, pairs, strict=True):
            check_examples(X, y, f"X_{role}", f"y_{role}")
            _check_not_negative(y, f"y_{role}")
        if len(widths := {X.shape[1] for X, _ in pairs}) > 1:
            raise ValueError(f"X_train, X_val and X_test must be of one width, got {sorted(widths)}")
    X, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    ends = np.cumsum([len(X) for X, _ in pairs])
    rows = np.split(np.arange(len(X)), ends[:-1])
    if len(absent := np.setdiff1d(np.arange(len(names)), labels[0])):
        note = _and(note, f"train has no example of {', '.join(names[k] for k in absent[:SHOWN])}")
    return _source(path.stem, X, y, names, rows, note, f"{path}: ")


def from_arrays(X: NDArray, y: NDArray, *, name: str = "arrays") -> Source:
    """Take features and labels from arrays, split by class.

    Args:
      X: features, ``[N, d]``, of any real dtype.
      y: labels, ``[N]``, integers or text, as in `load_npz`.
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
    """Load features alone, ``[N, d]`` of any real dtype, from an ``.npy`` or X of an ``.npz``.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is neither, or does not hold a matrix of finite numbers.
      TypeError: features are not real numbers.

    Example:
      >>> import numpy as np, tempfile
      >>> path = tempfile.mkdtemp() + "/features.npy"
      >>> np.save(path, np.eye(3))
      >>> load_features(path).shape
      (3, 3)
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                X = _array(file, "X")
        else:
            with zipfile.ZipFile(path) as archive:
                X = _members(archive, ["X"])["X"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected an .npy, or an .npz with X") from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} cannot be read as an .npy, or as an .npz with X: {one_line(error)}") from None
    with checks.about(path):
        check_examples(X, np.zeros(len(X) if X.ndim else 0, int))
    return X


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


def _read(path: Path) -> dict[str, NDArray]:
    wanted = ("X", "y", *READY)
    try:
        with zipfile.ZipFile(path) as archive:
            held = [member.removesuffix(".npy") for member in archive.namelist()]
            arrays = _members(archive, [name for name in wanted if name in held])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected an .npz with X and y") from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} cannot be read as an .npz of plain arrays: {one_line(error)}") from None
    if not ({"X", "y"} <= arrays.keys() or set(READY) <= arrays.keys()):
        found = one_line(", ".join(held) or "nothing")  # a name can be anything
        raise ValueError(f"{path} must hold X and y, or {', '.join(READY)}; it holds {found}")
    return arrays


def _members(archive: zipfile.ZipFile, names: Sequence[str]) -> dict[str, NDArray]:
    """Read arrays of an ``.npz``; raise if they exceed the host's memory."""
    size = sum(archive.getinfo(f"{name}.npy").file_size for name in names)
    if size > memory.host():
        raise ValueError(f"its arrays take {size} bytes, more than this machine has")
    arrays = {}
    for name in names:
        with archive.open(f"{name}.npy") as file:
            arrays[name] = _array(file, name)
    return arrays


def _array(file: IO[bytes] | BufferedIOBase, name: str) -> NDArray:
    """Read an array like `numpy.load`, but allocate memory only for bytes that the file holds."""
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(file)
    if dtype.hasobject:
        hint = ": save y.astype(str), or y.astype(int) of integers" if name.startswith("y") else ""
        raise ValueError(f"its {name} holds Python objects{hint}")
    return np.frombuffer(file.read(), dtype).reshape(shape, order="F" if fortran_order else "C")
