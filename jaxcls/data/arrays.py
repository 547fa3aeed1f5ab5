"""Features and labels of the user, from files or from arrays."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxcls.data import files
from jaxcls.data.files import NAMES
from jaxcls.data.labels import SHOWN, numbered
from jaxcls.data.rows import Rows
from jaxcls.data.source import Source, hold_out
from jaxcls.data.split import check_examples
from jaxcls.numerics import checks, one_line

ROLES = ("train", "val", "test")
TOO_FEW = "a class has too few examples, so {} are drawn without regard to classes"
READY = tuple(f"{array}_{role}" for role in ROLES for array in "Xy")


def load(
    path: str | Path,
    labels: str | Path | None = None,
    *,
    names: tuple[str, str] = NAMES,
    columns: Sequence[str] = (),
    roles: Sequence[str] = ("val", "test"),
) -> Source:
    """Open features and labels in a file, or in several, of any of the kinds that the usage page lists.

    A file holds ``X, y``, split here by class, or ready splits, ``X_train, y_train, X_val, y_val, X_test, y_test``.
    With ``labels``, the file of the features holds X or a single array, that of the labels y or a single array.
    A folder, or a pattern such as ``emb_*.npy``, stands for files whose rows follow one another, in natural order.
    ``X`` is ``[N, d]`` of any real dtype, which it keeps. ``y`` is ``[N]``, integers or text; classes are numbered in
    sorted order and keep their labels as names. Arrays of Python objects are never read.

    Args:
      path: the file, folder or pattern.
      labels: that of the labels, if it is another one.
      names: of X and y in the files.
      columns: the names of the features, where a file is a table of named columns; all but the labels when not given.
      roles: the splits to hold out of ``X, y``; without any, all rows are train. Ready splits stay as they are.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a file is of another kind, or damaged, or lacks these arrays, or their shapes do not match.
      TypeError: features are not real numbers, or labels are neither integers nor text.

    Example:
      >>> import numpy as np, tempfile
      >>> folder = tempfile.mkdtemp()
      >>> for part in (0, 1):
      ...     np.save(f"{folder}/emb_{part}.npy", np.eye(10, dtype=np.float16))
      >>> np.save(folder + "/labels.npy", np.arange(20) % 2)
      >>> source = load(folder + "/emb_*.npy", folder + "/labels.npy")
      >>> source.X.shape, source.X.dtype, len(source.train), len(source.val), len(source.test)
      ((20, 10), dtype('float16'), 14, 3, 3)
    """
    path = Path(path)
    paths = files.matching(path)
    if labels is not None:
        X, columns = _features(paths, names, columns)
        y = _labels([_one(each, names[1], names)[0] for each in files.matching(Path(labels))])
        with checks.about(path, labels):
            return _split(files.name_of(path), X, y, roles, f"{path}: ", columns)
    known, read = (*names, *READY), []
    for each in paths:
        content = files.read(
            each,
            " and ".join(names),
            lambda held: [name for name in known if name in held],
            names=names,
            columns=columns,
        )
        read.append(content)
        columns = columns or content.columns
    lacking = [k for k, content in enumerate(read) if not set(names) <= content.arrays.keys()]
    held, arrays, _ = read[lacking[0]] if lacking else read[0]
    if not lacking:
        X = _rows([content.arrays[names[0]] for content in read], paths)
        y = _labels([content.arrays[names[1]] for content in read])
        with checks.about(path):
            return _split(files.name_of(path), X, y, roles, f"{path}: ", columns)
    if len(paths) > 1 or not set(READY) <= arrays.keys():
        either = f"{' and '.join(names)}, or {', '.join(READY)}, or come with a file of labels"
        raise ValueError(f"{paths[lacking[0]]} must hold {either}; it holds {_names(held)}")
    numbers, class_names, note = numbered([np.asarray(arrays[f"y_{role}"]) for role in ROLES])
    pairs = list(zip([arrays[f"X_{role}"] for role in ROLES], numbers, strict=True))
    with checks.about(path):
        for role, (X, y) in zip(ROLES, pairs, strict=True):
            check_examples(X, y, f"X_{role}", f"y_{role}")
            _check_not_negative(y, f"y_{role}")
        X = Rows([X for X, _ in pairs], [f"X_{role}" for role in ROLES])
    y = np.concatenate(numbers)
    ends = np.cumsum([len(X) for X, _ in pairs])
    rows = np.split(np.arange(len(X)), ends[:-1])
    if len(absent := np.setdiff1d(np.arange(len(class_names)), numbers[0])):
        note = _and(note, f"train has no example of {', '.join(class_names[k] for k in absent[:SHOWN])}")
    return _source(files.name_of(path), X, y, class_names, rows, note, f"{path}: ")


def from_arrays(X: NDArray | Rows, y: NDArray, *, name: str = "arrays") -> Source:
    """Take features and labels from arrays, split by class.

    Args:
      X: features, ``[N, d]``, of any real dtype; or `jaxcls.data.Rows` of what is not to be read into memory.
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
    if not isinstance(X, Rows) and not hasattr(X, "toarray"):  # the check rejects sparse matrices, and masked arrays
        X = np.asanyarray(X)
    y = np.asanyarray(y)
    if y.dtype == object and all(isinstance(label, str) for label in y.flat):  # a column of a data frame
        y = y.astype(str)
    return _split(name, X, y, ("val", "test"))


def load_features(path: str | Path, *, name: str = NAMES[0], columns: Sequence[str] = ()) -> NDArray | Rows:
    """Open features alone, ``[N, d]`` of any real dtype: the array of this name, or the only one.

    Args:
      path: the file, folder or pattern.
      name: of the array.
      columns: the names of the features, where the file is a table of named columns; all when not given.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a file is of another kind, or damaged, or does not hold a matrix, or lacks a column.
      TypeError: features are not real numbers.

    Example:
      >>> import numpy as np, tempfile
      >>> path = tempfile.mkdtemp() + "/features.npy"
      >>> np.save(path, np.eye(3))
      >>> load_features(path).shape
      (3, 3)
    """
    paths = files.matching(Path(path))
    X, _ = _features(paths, (name, NAMES[1]), columns)
    if X.ndim == 1:
        raise ValueError(f"{path} must hold a matrix [N, D], a row for each example, got shape {list(X.shape)}")
    with checks.about(path):
        check_examples(X, np.zeros(len(X) if X.ndim else 0, int))
    return X


def _features(
    paths: Sequence[Path], names: tuple[str, str], columns: Sequence[str]
) -> tuple[NDArray | Rows, Sequence[str]]:
    """The features of several files, and the names of their columns, which are those of the first."""
    pieces = []
    for path in paths:
        piece, found = _one(path, names[0], names, columns)
        pieces.append(piece)
        columns = columns or found
    return _rows(pieces, paths), columns


def _one(
    path: Path, name: str, names: tuple[str, str], columns: Sequence[str] = ()
) -> tuple[NDArray | Rows, tuple[str, ...]]:
    """The array of this name, or the only one of the file under any name but that of the other; and its columns."""
    chosen = functools.partial(_chosen, name, names)
    held, arrays, found = files.read(path, name, chosen, names=names, columns=columns)
    if not arrays:
        raise ValueError(f"{path} must hold {name}, or one array; it holds {_names(held)}")
    return next(iter(arrays.values())), found


def _chosen(name: str, names: Sequence[str], held: Sequence[str]) -> Sequence[str]:
    alone = len(held) == 1 and held[0] not in names
    return [name] if name in held else held if alone else []


def _rows(pieces: Sequence[NDArray | Rows], paths: Sequence[Path]) -> NDArray | Rows:
    """The features of several files, one after another."""
    if len(pieces) == 1:
        return pieces[0]
    for piece, path in zip(pieces, paths, strict=True):
        if piece.ndim != 2:
            raise ValueError(f"{path} must hold X of shape [N, D], got {list(piece.shape)}")
    return Rows(pieces, [str(path) for path in paths])


def _labels(parts: Sequence[NDArray | Rows]) -> NDArray:
    """The labels of several files, one after another."""
    return np.concatenate([np.asarray(part) for part in parts]) if len(parts) > 1 else np.asarray(parts[0])


def _names(held: Sequence[str]) -> str:
    """The names of a file's arrays, which can be anything, in one line."""
    return one_line(", ".join(name or "an array without a name" for name in held) or "nothing")


def _split(
    name: str, X: NDArray | Rows, y: NDArray, roles: Sequence[str], where: str = "", columns: Sequence[str] = ()
) -> Source:
    """All examples, the roles held out by class."""
    (y,), names, note = numbered([y])
    check_examples(X, y)
    _check_not_negative(y, "y")
    rows, by_class = hold_out(y, roles)
    if roles and not by_class:
        note = _and(note, TOO_FEW.format(" and ".join(roles)))
    in_roles = [rows.get(role, np.empty(0, int)) for role in ROLES]
    return _source(name, X, y, names, in_roles, note, where, columns)


def _check_not_negative(y: NDArray[np.integer], name: str) -> None:
    """Check integer labels before they number anything."""
    if y.min() < 0:
        row = int(np.argmax(y < 0))
        raise ValueError(f"{name} must hold labels not below 0, got {y[row]} at row {row}")


def _source(
    name: str,
    X: NDArray | Rows,
    y: NDArray,
    names: tuple[str, ...],
    rows: Sequence[NDArray[np.integer]],
    note: str,
    where: str,
    columns: Sequence[str] = (),
) -> Source:
    train, val, test = rows
    return Source(
        name, X, y, train, val, test, names, note=f"{where}{note}" if note else "", feature_names=tuple(columns)
    )


def _and(*notes: str) -> str:
    return "; ".join(filter(None, notes))
