"""Arrays by name in the files that people keep features and labels in; nothing in a file is run.

    .npz            the arrays it holds
    .npy            one array, without a name
    .safetensors    the tensors it holds
    .pt             one tensor, without a name, or a dict of them; needs torch
    .parquet        its columns, of numbers, of text, or of lists of numbers of one length; needs pyarrow
    .csv            its columns: ``label``, or one by its name, or the only one, as y; all others, of numbers, as X,
                    or those of other data, by their names
    .txt            y: labels, one a line

A matrix in an ``.npy``, a ``.safetensors`` or, uncompressed, an ``.npz`` is opened, not read: see `jaxcls.data.Rows`.
"""

import csv
import json
import math
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias, TypeGuard

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcls import memory
from jaxcls.data.rows import OnDisk, Rows
from jaxcls.data.spool import joined
from jaxcls.numerics import one_line, require

NAMES = ("X", "y")  # of features and labels
TABLE, LABEL = ".csv", "label"  # the kind whose columns have names,, and its column of labels
NAMELESS = ""  # the name of an array that is alone in its file
NUMBERS = re.compile(r"(\d+)")
DECODED, BUFFER = 2**12, 2**20  # rows of a .parquet that are decoded together, and bytes that are read
LOCAL_HEADER = 30  # bytes before the name of a member of a zip file
BF16 = np.dtype(jnp.bfloat16)
SAFETENSORS: dict[str, str | np.dtype] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BF16, "BOOL": "?"}
SAFETENSORS |= {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)}
Arrays: TypeAlias = dict[str, NDArray | Rows]
Choose: TypeAlias = Callable[[Sequence[str]], Sequence[str]]


class Wanted(NamedTuple):
    """The arrays to be read of a file.

    Attributes:
      choose: the names to read, among those that the file holds.
      names: of features and labels; of a table, its columns but for that of the labels are the features.
      columns: of a table, its features instead.
    """

    choose: Choose
    names: tuple[str, str] = NAMES
    columns: Sequence[str] = ()


class Content(NamedTuple):
    """The names of all arrays in a file, those that were chosen, and the names of the columns of X where they have any.

    Attributes:
      held: the names.
      arrays: those chosen.
      columns: of a table of named columns.
    """

    held: Sequence[str]
    arrays: Arrays
    columns: tuple[str, ...] = ()


def read(
    path: Path, expected: str, choose: Choose, *, names: tuple[str, str] = NAMES, columns: Sequence[str] = ()
) -> Content:
    """Read some arrays of a file.

    Args:
      path: the file, of a kind in ``READERS``.
      expected: what it should hold, for the error if there is none.
      choose, names, columns: see `Wanted`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is of another kind, or damaged, or what reads it is not installed.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "features.npz"
      >>> np.savez(path, X=np.eye(2), z=np.zeros(9))
      >>> content = read(path, "X", lambda names: names[:1])
      >>> content.held, content.arrays["X"].shape
      (['X', 'z'], (2, 2))
    """
    if path.suffix not in READERS:
        raise ValueError(f"{path} must end in {', '.join(READERS)}")
    try:
        return READERS[path.suffix](path, Wanted(choose, names, columns))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected an {path.suffix} with {expected}") from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} cannot be read as an {path.suffix} of plain arrays: {one_line(error)}") from None


def matching(path: Path) -> list[Path]:
    """The files that a path names: itself; or all of a folder's of one kind, or of a pattern, in natural order.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: a folder holds files of several kinds.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> for number in (2, 10, 1):
      ...     np.save(folder / f"emb_{number}.npy", np.eye(2))
      >>> [path.name for path in matching(folder / "emb_*.npy")]
      ['emb_1.npy', 'emb_2.npy', 'emb_10.npy']
    """
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix in READERS]
        if len(kinds := {file.suffix for file in found}) > 1:
            raise ValueError(f"{path} must hold files of one kind, got {', '.join(sorted(kinds))}")
    elif path.exists() or not any(character in path.name for character in "*?["):
        return [path]
    else:
        found = list(path.parent.glob(path.name))
    if not found:
        raise FileNotFoundError(f"{path}: no such files, expected some of {', '.join(READERS)}")
    return sorted(found, key=lambda file: [int(part) if part.isdigit() else part for part in NUMBERS.split(file.name)])


def name_of(path: str | Path) -> str:
    """A name for data in a file, or in those of a folder or a pattern.

    Example:
      >>> [name_of(path) for path in ("a/feats.npz", "a/shards/", "a/img_emb_*.npy", "a/*.npy")]
      ['feats', 'shards', 'img_emb', 'a']
    """
    path = Path(path)
    plain = re.sub(r"[*?]|\[.*\]", "", path.stem).strip("-_.")
    return plain or path.parent.name or "files"


def _npz(path: Path, wanted: Wanted) -> Content:
    with zipfile.ZipFile(path) as archive:
        held = [member.removesuffix(".npy") for member in archive.namelist()]
        return Content(
            held, {name: _member(path, archive, archive.getinfo(f"{name}.npy"), name) for name in wanted.choose(held)}
        )


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> NDArray | Rows:
    with archive.open(info) as file:
        shape, fortran_order, dtype = _header(file, name)
        if info.compress_type == zipfile.ZIP_STORED and _is_matrix(shape, fortran_order):
            header = file.tell()
            if (needed := header + math.prod(shape) * dtype.itemsize) != info.file_size:
                raise ValueError(f"its {name} must take {needed} bytes, got {info.file_size}")
            while file.read(2**20):  # to its end, where its checksum is compared
                pass
            with path.open("rb") as whole:
                whole.seek(info.header_offset)
                before = struct.unpack("<HH", whole.read(LOCAL_HEADER)[-4:])  # the lengths of its name and extra field
            return Rows([OnDisk(path, info.header_offset + LOCAL_HEADER + sum(before) + header, shape, dtype)])
        if info.file_size > memory.host():
            raise ValueError(f"its {name} takes {info.file_size} bytes, more than this machine has")
        return _array(file.read(), shape, fortran_order, dtype)


def _npy(path: Path, _: Wanted) -> Content:
    with path.open("rb") as file:
        shape, fortran_order, dtype = _header(file, "X")
        if _is_matrix(shape, fortran_order):
            return Content([NAMELESS], {NAMELESS: Rows([OnDisk(path, file.tell(), shape, dtype)])})
        return Content([NAMELESS], {NAMELESS: _array(file.read(), shape, fortran_order, dtype)})


def _header(file: IO[bytes] | BufferedIOBase, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of the array that a file of NumPy holds from here on."""
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(file)
    if dtype.hasobject:
        hint = ": save y.astype(str), or y.astype(int) of integers" if name.startswith("y") else ""
        raise ValueError(f"its {name} holds Python objects{hint}")
    if min(shape, default=0) < 0:
        raise ValueError(f"its {name} must have lengths not below 0, got {shape}")
    return shape, fortran_order, dtype


def _is_matrix(shape: tuple[int, ...], fortran_order: bool) -> TypeGuard[tuple[int, int]]:
    """True for a matrix whose rows can be read one by one."""
    return len(shape) == 2 and min(shape) > 0 and (not fortran_order or min(shape) == 1)


def _array(content: bytes, shape: tuple[int, ...], fortran_order: bool, dtype: np.dtype) -> NDArray:
    """An array like `numpy.load`'s, from bytes that the file holds, however many it claims to."""
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _safetensors(path: Path, wanted: Wanted) -> Content:
    import safetensors  # an extra

    with safetensors.safe_open(path, framework="numpy") as file:  # which checks the header
        held = sorted(file.keys())
    arrays: Arrays = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name in wanted.choose(held):
            about = header[name]
            shape, dtype = tuple(about["shape"]), np.dtype(SAFETENSORS[about["dtype"]])
            first, stop = (8 + length + offset for offset in about["data_offsets"])
            if _is_matrix(shape, fortran_order=False):
                arrays[name] = Rows([OnDisk(path, first, shape, dtype)])
            else:
                file.seek(first)
                arrays[name] = _array(file.read(stop - first), shape, False, dtype)
    return Content(held, arrays)


def _pt(path: Path, wanted: Wanted) -> Content:
    try:
        import torch  # in no extra: who has such a file has it
    except ModuleNotFoundError:
        raise ValueError("that needs torch: pip install torch") from None
    held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    held = held if isinstance(held, dict) else {NAMELESS: held}
    tensors = {str(name): tensor for name, tensor in held.items() if isinstance(tensor, torch.Tensor)}
    return Content(list(tensors), {name: _of_tensor(tensors[name].detach()) for name in wanted.choose(list(tensors))})


def _of_tensor(tensor: Any) -> NDArray:
    import torch

    if tensor.dtype == torch.bfloat16:  # which NumPy has not
        return tensor.contiguous().view(torch.int16).numpy().view(BF16)
    return tensor.numpy()


def _parquet(path: Path, wanted: Wanted) -> Content:
    require("a .parquet", "pyarrow", extra="parquet")
    import pyarrow.parquet

    # Without a buffer it would hold all of a column's row group, with pre_buffer all that it has read.
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
        held, num_rows = file.schema_arrow.names, file.metadata.num_rows
        arrays = {name: joined(_parts(file, name), num_rows) for name in wanted.choose(held)}
    pyarrow.default_memory_pool().release_unused()
    return Content(held, arrays)


def _parts(file: Any, name: str) -> Iterator[NDArray]:
    """A column, some rows at a time."""
    for batch in file.iter_batches(DECODED, columns=[name]):
        yield _of_column(batch.column(0), name)


def _of_column(column: Any, name: str) -> NDArray:
    """Some rows of a column of pyarrow's; of lists of one length, a matrix."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        raise ValueError(f"its {name} has missing values")
    if not pyarrow.types.is_nested(column.type):
        text = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
        return column.to_numpy(zero_copy_only=False).astype(str if text else column.type.to_pandas_dtype())
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) != 1:
        raise ValueError(f"its {name} must hold lists of one length, got {lengths[0]} to {lengths[-1]}")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), int(lengths[0]))


def _txt(path: Path, _: Wanted) -> Content:
    return Content(["y"], {"y": _labels(path.read_text("utf-8-sig").splitlines())})


def _csv(path: Path, wanted: Wanted) -> Content:
    choose, (x, y), columns = wanted
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin it with a byte order mark
        header, *rows = [*csv.reader(file, strict=True, skipinitialspace=True)] or [[]]
    if not rows:
        raise ValueError("it must have a header and a row for each example")
    if len(header) == 1 and ";" in header[0]:
        raise ValueError(f"its columns must be separated by commas, its header is {header[0]}")
    if not all(header):
        raise ValueError(f"its columns must have names, column {header.index('')} has none")
    for name, count in Counter(header).items():
        if count > 1:
            raise ValueError(f"its columns must have names of their own, {count} are {name}")
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"its rows must have the {len(header)} columns of its header, row {number} has {len(row)}")
    if len(header) == 1 and not columns:
        return Content([y], {name: _labels([row[0] for row in rows]) for name in choose([y])})
    chosen, label, place = choose([x, y]), LABEL if y == NAMES[1] else y, {name: k for k, name in enumerate(header)}
    features = tuple(columns) or tuple(name for name in header if name != label)
    needed = [*(features if x in chosen else ()), *([label] if y in chosen else ())]
    if lacking := [name for name in needed if name not in place]:
        other = ", or names must give another" if lacking == [LABEL] else ""
        raise ValueError(f"it must have a column {', '.join(lacking)}{other}: it has {', '.join(header)}")
    arrays: Arrays = {}
    if x in chosen:
        some = [place[name] for name in features]
        arrays[x] = _numbers([[row[column] for column in some] for row in rows], features)
    if y in chosen:
        arrays[y] = _labels([row[place[label]] for row in rows])
    return Content([x, y], arrays, features)


def _numbers(rows: Sequence[Sequence[str]], header: Sequence[str]) -> NDArray[np.float64]:
    """Features of text; the error names the first that is no number."""
    try:
        return np.array(rows, np.float64)
    except ValueError:
        number, name, text = next(
            (number, name, text)
            for number, row in enumerate(rows)
            for name, text in zip(header, row, strict=True)
            if not _is_number(text)
        )
        raise ValueError(f"its features must be numbers, got {text!r} in row {number}, column {name}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _labels(lines: Sequence[str]) -> NDArray:
    """Labels as integers if they all are.

    Raises:
      ValueError: one is empty.
    """
    if "" in lines:
        raise ValueError(f"its labels must not be empty, that of row {lines.index('')} is")
    return np.array(lines, np.int64 if all(re.fullmatch(r"-?\d{1,18}", line) for line in lines) else str)


READERS: dict[str, Callable[[Path, Wanted], Content]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".safetensors": _safetensors,
    ".pt": _pt,
    ".parquet": _parquet,
    ".csv": _csv,
    ".txt": _txt,
}
