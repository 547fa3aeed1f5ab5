"""Damage files and read them: the only outcomes are the right data, or a one-line error.

python -m parity_tests.campaigns.damage                 # 13,500 damaged files
python -m parity_tests.campaigns.damage --files 100     # of each kind

While a file is read, an audit hook watches for anything that runs code, opens a file to write, or reaches for another
process or the network.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import os
import pickle
import random
import resource
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.numpy
import torch

from jaxcls import data, sweep
from jaxcls.artifacts import checkpoint, record
from jaxcls.classifier import two_layer_net
from jaxcls.data import cifar10
from jaxcls.grid import Grid
from parity_tests.support.made_up import PER_BATCH, files

Edit = tuple[str, str, float, bytes]  # what is done, from where, how far from there, with which bytes

PLACES: dict[str, Callable[[int, float], int]] = {
    "anywhere": lambda size, x: int(x * size),
    "the front": lambda size, x: int(x * min(size, 1000)),
    "the back": lambda size, x: size - int(x * min(size, 1000)),
}
EDITS: dict[str, Callable[[bytes, int, bytes], bytes]] = {
    "truncate": lambda raw, at, new: raw[:at],
    "flip": lambda raw, at, new: (
        raw[:at] + bytes([raw[at] ^ 1 << new[0] % 8]) + raw[at + 1 :] if at < len(raw) else b""
    ),
    "overwrite": lambda raw, at, new: raw[:at] + new + raw[at + len(new) :],
    "insert": lambda raw, at, new: raw[:at] + new + raw[at:],
    "delete": lambda raw, at, new: raw[:at] + raw[at + len(new) :],
    "zero": lambda raw, at, new: raw[:at] + bytes(64 * len(new)) + raw[at + 64 * len(new) :],
    "repeat": lambda raw, at, new: raw[:at] + raw[max(at - len(new), 0) : at] * 100 + raw[at:],
}
SECONDS = 20
SENTENCES = (ValueError, TypeError, FileNotFoundError)
FORBIDDEN = ("exec", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.find_class", "tempfile.")


KINDS = (
    "cifar-10-batches-py",
    "cifar-10-batches-bin",
    "cifar-10 archive",
    ".npz",
    ".npz, compressed",
    ".npy",
    ".safetensors",
    ".pt",
    ".parquet",
    ".csv",
    checkpoint.NAME,
    "run.json",
    "results.csv",
    "history.csv",
    "best.safetensors",
)


class Kind(NamedTuple):
    """A kind of file: where it lies, what it holds when whole, how it is read, whether what was read is right."""

    path: Path
    whole: bytes
    read: Callable[[Path], Any]
    right: Callable[[Any], bool]


def damaged(raw: bytes, edits: list[Edit]) -> bytes:
    """The bytes after these edits, one after another."""
    for what, place, x, new in edits:
        raw = EDITS[what](raw, PLACES[place](len(raw), x), new)
    return raw


def outcome(kind: Kind, raw: bytes) -> str:
    """``right`` or ``refused``.

    Raises:
      AssertionError: it is neither.
    """
    kind.path.write_bytes(raw)
    start = time.process_time()  # others may use the machine
    try:
        with watched() as events:
            found = kind.read(kind.path)
    except SENTENCES as error:
        text, what = str(error), "refused"
        assert text.isprintable(), f"not one line: {text!r}"
        assert 0 < len(text) < 1000, f"not one line: {text!r}"
    else:
        assert kind.right(found), "wrong data"
        what = "right"
    finally:
        kind.path.write_bytes(kind.whole)
    assert not events, f"it did {events}"
    assert time.process_time() - start < SECONDS, f"it took {SECONDS} s"
    return what


_watching: list[list[str]] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if writes or event.startswith(FORBIDDEN):
        _watching[-1].append(f"{event} {args[:1]!r}")


sys.addaudithook(_hook)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Events meanwhile that no reader may cause."""
    _watching.append([])
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


@functools.cache
def kinds() -> dict[str, Kind]:
    """Every kind of file that jaxcls reads."""
    place = Path(tempfile.mkdtemp())
    splits = data.standard(data.load_digits())
    grid = Grid([0.1, 100.0], [0.0, 1e-3], [0], [3, 7])
    options = {"steps": 20, "batch_size": 200, "classifier": two_layer_net(init_scale=0.1), "history": True}
    path = place / checkpoint.NAME
    result = sweep.run(
        splits, grid, chunk_steps=10, save=lambda take: checkpoint.write(path, take(), {"lr": [0.1]}), **options
    )
    (place / "run").mkdir()
    record.write(place / "run", result, splits, {})
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 20)).astype(np.float32), rng.integers(0, 5, 300)
    stored, compressed, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(stored, X=X, y=y)
    np.savez_compressed(compressed, X=X, y=y)
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
        for name in cifar10.BINARY_BATCHES:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = cifar10.BATCH_BYTES
            tar.addfile(member, io.BytesIO(bytes(cifar10.BATCH_BYTES)))

    made: dict[str, Kind] = {}

    def add(name: str, file: str, whole: bytes, read: Callable[[Path], Any], right: Any = None) -> None:
        with contextlib.suppress(*SENTENCES):  # the type checker of the tests runs code of its own at a first call
            (place / file).write_bytes(whole[:1])
            read(place / file)
        (place / file).write_bytes(whole)
        found = read(place / file)
        expected = None if right else _bits(found)
        made[name] = Kind(place / file, whole, read, right or (lambda found: _bits(found) == expected))
        made[name].right(found)

    # A picture has no checksum of its own: the MD5 of the whole file makes a note, and the archive has a SHA-256.
    def is_batch(batch: cifar10._Batch) -> bool:
        sizes_right = batch.pixels.shape == (PER_BATCH, 3072) and batch.labels.shape == (PER_BATCH,)
        return sizes_right and 0 <= batch.labels.min() <= batch.labels.max() <= 9

    raw, read = files()["data_batch_1"], cifar10._read_pickle
    add("cifar-10-batches-py", "data_batch_1", raw, lambda path: read(path.read_bytes(), str(path)), is_batch)
    raw, read_bin = files()["data_batch_1.bin"], cifar10._read_binary
    add("cifar-10-batches-bin", "data_batch_1.bin", raw, lambda path: read_bin(path.read_bytes(), str(path)), is_batch)
    add(
        "cifar-10 archive",
        "cifar-10.tar.gz",
        archive.getvalue(),
        cifar10._read_archive,
        lambda all_: all(map(is_batch, all_)),
    )
    add(".npz", "features.npz", stored.getvalue(), data.load)
    add(".npz, compressed", "compressed.npz", compressed.getvalue(), data.load)

    # These have no checksum: a number may be another, of no more bytes than the file can hold.
    def is_matrix(found: data.Source | data.Rows | np.ndarray) -> bool:
        rows = found.X if isinstance(found, data.Source) else found
        return np.asarray(rows).ndim == 2 and rows.nbytes < 10 * X.nbytes

    npy, parquet, pt = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, X)
    pyarrow.parquet.write_table(pa.table({"X": list(X), "y": y}), parquet)
    torch.save({"X": torch.tensor(X), "y": torch.tensor(y)}, pt)
    csv = "\n".join(["a,b,label", *(f"{a},{b},{label}" for a, b, label in zip(X[:, 0], X[:, 1], y, strict=True))])
    add(".npy", "features.npy", npy.getvalue(), data.load_features, is_matrix)
    add(".safetensors", "X.safetensors", safetensors.numpy.save({"X": X, "y": y}), data.load, is_matrix)
    add(".pt", "features.pt", pt.getvalue(), data.load, is_matrix)
    add(".parquet", "features.parquet", parquet.getvalue(), data.load, is_matrix)
    add(".csv", "features.csv", csv.encode(), data.load, is_matrix)
    add(checkpoint.NAME, path.name, path.read_bytes(), checkpoint.read)
    for name in ("run.json", "results.csv", "history.csv", "best.safetensors"):
        whole = (place / "run" / name).read_bytes()
        add(name, f"run/{name}", whole, lambda path: record.read(path.parent))
    assert tuple(made) == KINDS
    return made


def _bits(found: Any) -> list[Any]:
    """All that was read, so that equal means equal to the bit."""
    if dataclasses.is_dataclass(found):
        return _bits(vars(found))
    if isinstance(found, dict):
        return [(key, _bits(value)) for key, value in found.items()]
    if isinstance(found, tuple | list):
        return [_bits(value) for value in found]
    if isinstance(found, data.Rows):
        return _bits(found[:])
    if isinstance(found, np.ndarray):
        return [found.dtype.descr, found.shape, found.tobytes()]
    return [repr(found)]


class Call:
    """Pickles as a call of ``os.system``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo code ran",)


def bomb(name: str, content: bytes, declared: tuple[int, ...] | None = None) -> bytes:
    """An .npz whose X says it is of shape ``declared``, and holds this."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, shape in ((f"{name}.npy", declared), ("y.npy", (4,))):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": shape})
            archive.writestr(member, header.getvalue() + content)
    return file.getvalue()


def tar(*members: tuple[str, bytes | str]) -> bytes:
    """A .tar.gz of files, given as bytes, and links, given as where they lead."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def hostile() -> Iterator[tuple[str, str, bytes]]:
    """Files made on purpose: kind, what is wrong, bytes."""
    for name, made in HOSTILE.items():
        yield from ((name, what, raw) for what, raw in made().items())


def hostile_pickles(marks: int = 30_000_000) -> dict[str, bytes]:
    """Pickles that are no batch of CIFAR-10, though Python would load them; some are as long as a batch."""
    return {
        "a call": pickle.dumps({b"data": Call(), b"labels": [0]}, 2),
        "a call, protocol 5": pickle.dumps({b"data": Call(), b"labels": [0]}, 5),
        "an import": b"\x80\x02cos\nsystem\n.",
        "an import through numpy": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(U\x011}tR.",
        "a nested name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.tobytes\x93.",
        "deep nesting": b"\x80\x02" + b"(" * 1_000_000 + b"t" * 1_000_000 + b".",
        "a long that is too long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "bytes that are not there": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
        "marks without end": b"\x80\x02" + b"(" * marks,
        "marks in a frame": b"\x80\x04\x95" + marks.to_bytes(8, "little") + b"(" * marks,
        "a frame that is not there": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b".",
        "a memo far away": b"\x80\x02}r\xff\xff\xff\x07.",
        "objects": pickle.dumps({b"data": np.array([print] * 3), b"labels": [0]}, 2),
    }


def hostile_archives() -> dict[str, bytes]:
    """Archives of CIFAR-10 that reach outside, or grow; of zeros, which compress fast."""
    batch = bytes(cifar10.BATCH_BYTES)
    names = [f"cifar-10-batches-bin/{name}" for name in cifar10.BINARY_BATCHES]
    return {
        "climbs out": tar(("../../data_batch_1.bin", batch), ("/etc/data_batch_2.bin", batch)),
        "links": tar(*((name, "/etc/passwd") for name in names)),
        "a link to itself": tar((names[0], names[0])),
        "expands": tar(*((name, bytes(3 * cifar10.BATCH_BYTES)) for name in names)),
        "one batch six times": tar(*((names[0], batch) for _ in names)),
    }


def hostile_zips() -> dict[str, bytes]:
    """Features whose header lies, or that are no arrays of numbers."""
    zips = {
        "expands": bomb("X", bytes(2**28), (2**25, 1)),
        "a shape that is not there": bomb("X", bytes(80), (2**50, 2)),
        "a shape beyond all integers": bomb("X", bytes(80), (2**80, 2)),
        "a negative shape": bomb("X", bytes(80), (-1, 2)),
        "climbs out": bomb("../X", bytes(80), (5, 2)),
        "a zip of a zip": bomb("X", bomb("X", bytes(80), (5, 2)), (5, 2)),
    }
    objects = io.BytesIO()
    np.savez(objects, X=np.array([[Call()] * 3] * 9, dtype=object), y=np.arange(9) % 2)
    return zips | {"objects": objects.getvalue()}


def hostile_tensors() -> dict[str, bytes]:
    """Headers of safetensors that lie."""
    size = 2**40
    header = json.dumps({"losses": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}).encode()
    return {
        "a header that is not there": (2**62).to_bytes(8, "little") + b"{}",
        "an array that is not there": len(header).to_bytes(8, "little") + header,
        "no text": safetensors.numpy.save({"sha256": np.zeros(32, np.uint8)}),
        "text that is no JSON": safetensors.numpy.save({"sha256": np.zeros(32, np.uint8)}, {"jaxcls": "{"}),
    }


def hostile_records() -> dict[str, bytes]:
    """JSON that is no run's record."""
    return {
        "deep nesting": b"[" * 1_000_000,
        "a number": b"7",
        "a list": b"[]",
        "a long integer": b"1" * 100_000,
        "files elsewhere": json.dumps({"files": {"../../../etc/passwd": "0"}, "sha256": ""}).encode(),
        "not text": b"\xff\xfe\x00",
    }


def hostile_arrays() -> dict[str, bytes]:
    """Headers of .npy that lie, and objects."""
    made = {}
    shapes = {"not there": (2**50, 2), "beyond all integers": (2**80, 2), "negative": (-1, 2), "empty": (0, 2)}
    for what, shape in shapes.items():
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        made[f"a shape that is {what}"] = header.getvalue() + bytes(80)
    objects = io.BytesIO()
    np.save(objects, np.array([[Call()] * 3] * 9, dtype=object), allow_pickle=True)
    return made | {"objects": objects.getvalue()}


def hostile_torch() -> dict[str, bytes]:
    """Pickles of torch that call."""
    made = io.BytesIO()
    torch.save({"X": Call(), "y": torch.zeros(3)}, made)
    return {"a call": made.getvalue(), "a plain pickle": pickle.dumps({"X": Call()})}


HOSTILE: dict[str, Callable[[], dict[str, bytes]]] = {
    "cifar-10-batches-py": hostile_pickles,
    "cifar-10 archive": hostile_archives,
    ".npz": hostile_zips,
    ".npy": hostile_arrays,
    ".pt": hostile_torch,
    "checkpoint.safetensors": hostile_tensors,
    "best.safetensors": hostile_tensors,
    "run.json": hostile_records,
}


def campaign(count: int, seed: int) -> int:
    """Print a table; 1 if any outcome was another than it may be, else 0."""
    rng, wrong, total = random.Random(seed), 0, 0
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # noqa: E731
    made, before = kinds(), peak()
    given = Counter[tuple[str, str]]()

    def attempt(name: str, raw: bytes, what: object) -> None:
        nonlocal wrong, total
        total += 1
        try:
            given[name, outcome(made[name], raw)] += 1
        except BaseException as error:
            wrong += 1
            print(f"{name}: {what}: {type(error).__name__}: {error}"[:500])

    for name, what, raw in hostile():
        attempt(name, raw, what)
    for name, kind in made.items():
        for _ in range(count if len(kind.whole) < 1e6 else count // 2):
            edits = [
                (rng.choice(list(EDITS)), rng.choice(list(PLACES)), rng.random(), rng.randbytes(rng.randint(1, 8)))
                for _ in range(rng.choice([1, 1, 1, 2, 5]))
            ]
            attempt(name, damaged(kind.whole, edits), edits)
    print(f"{'':24}{'refused':>10}{'right':>10}")
    for name in made:
        print(f"{name:24}{given[name, 'refused']:10,}{given[name, 'right']:10,}")
    print(
        f"{total:,} files, {wrong} of them with another outcome; peak memory {before:.0f} MB before, {peak():.0f} after"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(campaign(options.files, options.seed))
