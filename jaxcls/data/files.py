"""Arrays by name in the files that people keep features and labels in; nothing in a file is run.

    .npz            the arrays it holds
    .npy            one array, without a name
    .safetensors    the tensors it holds
    .pt             one tensor, without a name, or a dict of them; needs torch
    .txt            y: labels, one a line
    .csv            y: the column ``label``, or the only one

An ``.npy`` and a ``.pt`` are mapped: what is not used is not read.
"""

import csv
import re
import zipfile
from collections.abc import Callable, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jaxcls import memory
from jaxcls.numerics import one_line

NAMELESS = ""  # the name of an array that is alone in its file
Arrays: TypeAlias = dict[str, NDArray]
Choose: TypeAlias = Callable[[Sequence[str]], Sequence[str]]


def read(path: Path, expected: str, choose: Choose) -> tuple[Sequence[str], Arrays]:
    """Read some arrays of a file.

    Args:
      path: the file, of a kind in ``READERS``.
      expected: what it should hold, for the error if there is none.
      choose: the names to read, among those that the file holds.

    Returns:
      The names of all arrays, and those chosen.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is of another kind, or damaged, or what reads it is not installed.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "features.npz"
      >>> np.savez(path, X=np.eye(2), z=np.zeros(9))
      >>> read(path, "X", lambda names: names[:1])
      (['X', 'z'], {'X': array([[1., 0.],
             [0., 1.]])})
    """
    if path.suffix not in READERS:
        raise ValueError(f"{path} must end in {', '.join(READERS)}")
    try:
        return READERS[path.suffix](path, choose)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected an {path.suffix} with {expected}") from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} cannot be read as an {path.suffix} of plain arrays: {one_line(error)}") from None


def _npz(path: Path, choose: Choose) -> tuple[Sequence[str], Arrays]:
    with zipfile.ZipFile(path) as archive:
        held = [member.removesuffix(".npy") for member in archive.namelist()]
        names = choose(held)
        size = sum(archive.getinfo(f"{name}.npy").file_size for name in names)
        if size > memory.host():
            raise ValueError(f"its arrays take {size} bytes, more than this machine has")
        arrays = {}
        for name in names:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = _array(file, name)
    return held, arrays


def _array(file: IO[bytes] | BufferedIOBase, name: str) -> NDArray:
    """Read an array like `numpy.load`, but allocate memory only for bytes that the file holds."""
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(file)
    if dtype.hasobject:
        hint = ": save y.astype(str), or y.astype(int) of integers" if name.startswith("y") else ""
        raise ValueError(f"its {name} holds Python objects{hint}")
    return np.frombuffer(file.read(), dtype).reshape(shape, order="F" if fortran_order else "C")


def _npy(path: Path, _: Choose) -> tuple[Sequence[str], Arrays]:
    return [NAMELESS], {NAMELESS: np.asarray(np.lib.format.open_memmap(path, mode="r"))}


def _safetensors(path: Path, choose: Choose) -> tuple[Sequence[str], Arrays]:
    import safetensors  # an extra

    with safetensors.safe_open(path, framework="numpy") as file:
        held = sorted(file.keys())
        return held, {name: file.get_tensor(name) for name in choose(held)}


def _pt(path: Path, choose: Choose) -> tuple[Sequence[str], Arrays]:
    import torch  # in no extra: who has such a file has it

    def array(tensor: torch.Tensor) -> NDArray:
        narrow = tensor.dtype == torch.bfloat16  # which NumPy has not
        return (tensor.float() if narrow else tensor).detach().numpy()

    held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    held = held if isinstance(held, dict) else {NAMELESS: held}
    tensors = {str(name): tensor for name, tensor in held.items() if isinstance(tensor, torch.Tensor)}
    return list(tensors), {name: array(tensors[name]) for name in choose(list(tensors))}


def _txt(path: Path, _: Choose) -> tuple[Sequence[str], Arrays]:
    return ["y"], {"y": _labels(path.read_text("utf-8").splitlines())}


def _csv(path: Path, _: Choose) -> tuple[Sequence[str], Arrays]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, strict=True)
        if len(header) > 1 and "label" not in header:
            raise ValueError(f"it must have a column label, it has {', '.join(header)}")
        column = header.index("label") if len(header) > 1 else 0
        return ["y"], {"y": _labels([row[column] for row in rows])}


def _labels(lines: Sequence[str]) -> NDArray:
    """Labels as integers if they all are."""
    return np.array(lines, np.int64 if all(re.fullmatch(r"-?\d{1,18}", line) for line in lines) else str)


READERS: dict[str, Callable[[Path, Choose], tuple[Sequence[str], Arrays]]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".safetensors": _safetensors,
    ".pt": _pt,
    ".txt": _txt,
    ".csv": _csv,
}
