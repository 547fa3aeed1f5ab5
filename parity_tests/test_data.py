"""Loaders and protocols: the right data, or a one-line error."""

import dataclasses
import functools
import http.server
import io
import pickle
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from jaxcls import data
from jaxcls.classifier import linear
from jaxcls.data import Source, Split, Splits
from jaxcls.data.cifar10 import BINARY_BATCHES, PYTHON_BATCHES, download
from jaxcls.data.source import hold_out
from parity_tests.support.cases import slow
from parity_tests.support.made_up import PER_BATCH, files, pictures, python2_pickle


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of both versions."""
    written = tmp_path_factory.mktemp("batches")
    for name in (*PYTHON_BATCHES, *BINARY_BATCHES):
        (written / name).write_bytes(files()[name])
    return written


def link(names: Iterable[str], batches: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for name in names:
        (to / name).hardlink_to(batches / name)


@pytest.fixture
def folder(batches: Path, tmp_path: Path) -> Path:
    """A folder with the Python version in it."""
    link(PYTHON_BATCHES, batches, tmp_path / "cifar-10-batches-py")
    return tmp_path


@pytest.mark.parametrize("within", [False, *slow(True)])
def test_python_and_binary_versions_are_read_alike(within: bool, batches: Path, folder: Path, tmp_path: Path) -> None:
    binary = tmp_path / "other" / "cifar-10-batches-bin"
    link(BINARY_BATCHES, batches, binary)
    expected = [np.concatenate(parts) for parts in zip(*map(pictures, range(6)), strict=True)]
    for place in (folder / "cifar-10-batches-py", binary) if within else (folder, binary.parent):
        source = data.load_cifar10(place)
        np.testing.assert_array_equal(source.X, expected[0])
        np.testing.assert_array_equal(source.y, expected[1])
    assert "MD5" in data.load_cifar10(folder).note
    assert (len(source.train), len(source.test)) == (45_000, 10_000)


class Evil:
    def __reduce__(self) -> tuple:
        return print, ("code ran",)


TAMPERED: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "missing": (lambda raw: None, "data_batch_3 is missing, expected all of data_batch_1"),
    "truncated": (lambda raw: raw[: len(raw) // 2], "data_batch_3 is (truncated|not a CIFAR-10 batch)"),
    "empty": (lambda raw: b"", "data_batch_3 is truncated"),
    "no pickle": (lambda raw: b"P" * 1000, "data_batch_3 is not a CIFAR-10 batch"),
    "imports os.system": (
        lambda raw: b"cos\nsystem\n(S'true'\ntR.",
        "is refused: the pickle tries to import os.system",
    ),
    "calls print": (lambda raw: pickle.dumps(Evil(), 2), "is refused: the pickle tries to import __builtin__.print"),
    "calls numpy's loader": (lambda raw: b"cnumpy\nload\n.", "is refused: the pickle tries to import numpy.load"),
    "a later protocol": (lambda raw: pickle.dumps(Evil(), 5), "expected a pickle of protocol 2, got opcode 149"),
    "no dict": (lambda raw: pickle.dumps([1, 2], 2), "expected a dict with data and labels"),
    "labels are text": (
        lambda raw: python2_pickle(pictures(0)[0], []).replace(b"](e", b"](U\x01ae", 1),
        "expected an array of pixels and a list of integer labels",
    ),
    "too few pictures": (
        lambda raw: python2_pickle(pictures(0)[0][:100], [0] * 100),
        "expected 10000 x 3072 pixels and 10000 labels, got 100 x 3072 and 100",
    ),
    "label out of range": (
        lambda raw: python2_pickle(pictures(0)[0], [3] * 9_999 + [10]),
        r"labels must lie in \[0, 10\), got 10 at row 9999 of .*data_batch_3",
    ),
    "array of objects": (lambda raw: raw.replace(b"U\x02u1", b"U\x02O8", 1), "its array is of dtype b'O8'"),
    "shape larger than its bytes": (
        lambda raw: raw.replace(b"M\x10'M\x00\x0c\x86", b"M\x10'M\x00\x0d\x86", 1),
        "not a CIFAR-10 batch: cannot reshape",
    ),
}


@pytest.mark.parametrize("damage", TAMPERED)
def test_a_damaged_batch_is_refused_and_runs_nothing(damage: str, folder: Path, capfd: pytest.CaptureFixture) -> None:
    tamper, sentence = TAMPERED[damage]
    path = folder / "cifar-10-batches-py" / "data_batch_3"
    raw = tamper(path.read_bytes())
    path.unlink()  # a link to what other tests read
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        data.load_cifar10(folder)
    assert "code ran" not in capfd.readouterr().out


def test_a_truncated_binary_batch_is_refused(batches: Path, tmp_path: Path) -> None:
    link(BINARY_BATCHES[1:], batches, tmp_path)
    (tmp_path / BINARY_BATCHES[0]).write_bytes(files()[BINARY_BATCHES[0]][:-1])
    with pytest.raises(ValueError, match=r"data_batch_1.bin is truncated .* expected 30730000 bytes, got 30729999"):
        data.load_cifar10(tmp_path)


def test_a_folder_without_cifar10_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no CIFAR-10, expected data_batch_1 to data_batch_5"):
        data.load_cifar10(tmp_path)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A local mirror: its URL, and the checksum of the archive it has."""
    served = tmp_path_factory.mktemp("served")
    with tarfile.open(served / "cifar-10-python.tar.gz", "w:gz", compresslevel=0) as archive:
        for name in PYTHON_BATCHES:
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(files()[name])
            archive.addfile(member, io.BytesIO(files()[name]))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        checksum = sha256((served / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
        yield f"http://127.0.0.1:{server.server_port}", checksum
        server.shutdown()


def test_mirrors_are_tried_in_turn_and_the_archive_is_read(
    mirror: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, checksum = mirror
    mirrors = tuple((f"{url}/{place}/cifar-10-python.tar.gz", checksum) for place in ("absent", "."))
    path = download(tmp_path / "cache", mirrors)
    assert path == tmp_path / "cache" / "cifar-10-python.tar.gz"
    assert download(tmp_path / "cache", (("http://127.0.0.1:9/cifar-10-python.tar.gz", checksum),)) == path
    monkeypatch.delenv("JAXCLS_CIFAR10", raising=False)
    monkeypatch.setattr("jaxcls.data.cifar10.download", lambda: path)
    source = data.load_cifar10()
    np.testing.assert_array_equal(source.X[-PER_BATCH:], pictures(5)[0])
    assert source.note == ""


def test_two_processes_may_fill_one_cache(mirror: tuple[str, str], tmp_path: Path) -> None:
    url, checksum = mirror
    lines = "import sys; from jaxcls.data import cifar10; cifar10.download(sys.argv[1], ((sys.argv[2], sys.argv[3]),))"
    command = [sys.executable, "-c", lines, str(tmp_path / "cache"), f"{url}/cifar-10-python.tar.gz", checksum]
    both = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    path, sizes = tmp_path / "cache" / "cifar-10-python.tar.gz", set()
    while any(process.poll() is None for process in both):
        time.sleep(0.001)
        sizes |= {path.stat().st_size} if path.exists() else set()
    assert [process.returncode for process in both] == [0, 0]
    assert sizes <= {path.stat().st_size}  # never there in part
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert sha256(path.read_bytes()).hexdigest() == checksum


def test_a_wrong_checksum_is_refused_and_not_kept(mirror: tuple[str, str], tmp_path: Path) -> None:
    url, _ = mirror
    with pytest.raises(
        ConnectionError, match=r"could not be downloaded \(127.*: wrong checksum\); unpack .* --data-dir"
    ):
        download(tmp_path / "cache", ((f"{url}/cifar-10-python.tar.gz", "0" * 64),))
    assert not any((tmp_path / "cache").iterdir())


def test_no_mirror_at_all_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        ConnectionError,
        match=r"could not be downloaded \(127.*: ConnectionError\); unpack cifar-10-python\.tar\.gz by hand",
    ):
        download(tmp_path, (("http://127.0.0.1:9/cifar-10-python.tar.gz", "0" * 64),))


@pytest.fixture(scope="module")
def made_up() -> Source:
    X, y = (np.concatenate(parts) for parts in zip(*map(pictures, range(6)), strict=True))
    train, val, test = np.split(np.arange(60_000), [45_000, 50_000])
    pixels = np.arange(3072).reshape(3, 32, 32).transpose(1, 2, 0)
    return Source("cifar10", X, y, train, val, test, data.CIFAR10_CLASSES, pixels)


def test_cs231n_prepares_as_the_course_does(made_up: Source) -> None:
    """The course's own lines, on the pictures as it loads them."""
    splits = data.cs231n(made_up)
    X = made_up.X.reshape(60_000, 3, 32, 32).transpose(0, 2, 3, 1).astype("float64")
    X_train, X_val, X_test = X[:49_000], X[49_000:50_000], X[50_000:51_000]
    mean_image = np.mean(X_train.reshape(49_000, -1), axis=0)
    for split, raw in ((splits.train, X_train[:500]), (splits.val, X_val), (splits.test, X_test)):
        expected = raw.reshape(len(raw), -1) - mean_image
        np.testing.assert_allclose(split.X[: len(raw)], expected, atol=1e-4)
    assert [len(split.y) for _, split in splits.items()] == [49_000, 1_000, 1_000]
    assert splits.num_features == 3072
    assert linear().features(splits.val.X).shape == (1_000, 3073)  # the bias trick
    np.testing.assert_array_equal(splits.val.y, made_up.y[49_000:50_000])


def test_eecs498_prepares_as_the_course_does(made_up: Source) -> None:
    splits = data.eecs498(made_up)
    X = made_up.X.reshape(60_000, 3, 32, 32).astype("float64") / 255
    X -= X[:50_000].mean(axis=(0, 2, 3), keepdims=True)
    for split, rows in (
        (splits.train, slice(0, 500)),
        (splits.val, slice(40_000, 50_000)),
        (splits.test, slice(50_000, None)),
    ):
        expected = X[rows].reshape(-1, 3072)
        np.testing.assert_allclose(split.X[: len(expected)], expected, atol=1e-6)
    assert [len(split.y) for _, split in splits.items()] == [40_000, 10_000, 10_000]


@pytest.mark.parametrize("protocol", [data.cs231n, data.eecs498])
def test_templates_find_their_pixels(protocol: Callable[[Source], Splits], made_up: Source) -> None:
    splits = protocol(made_up)
    picture = made_up.X[0].reshape(3, 32, 32).transpose(1, 2, 0)
    raw = splits.train.X[0] * splits.scale + splits.mean
    np.testing.assert_allclose(raw[splits.pixels], picture, atol=1e-3)


def test_course_protocols_are_for_cifar10_only() -> None:
    for protocol in (data.cs231n, data.eecs498):
        with pytest.raises(ValueError, match="prepares cifar10 only, got digits"):
            protocol(data.load_digits())


def test_standard_standardises_by_train_alone() -> None:
    splits = data.standard(data.load_digits())
    train = splits.train.X
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-6)
    deviations = train.std(axis=0)
    assert np.isclose(deviations, 1, atol=1e-5).sum() + (deviations == 0).sum() == 64
    assert abs(splits.val.X.mean()) > 1e-4


LARGE = {
    "time stamps": (1.7e9, float),
    "identifiers": (2**40, np.int64),
    "beyond float32's integers": (2**24, np.int32),
}


@pytest.mark.parametrize("case", LARGE)
def test_standardisation_keeps_what_float32_cannot_hold(case: str) -> None:
    """The mean is subtracted in float64, in every fold too, and by what is saved with the weights."""
    offset, kind = LARGE[case]
    y = np.arange(60) % 2
    X = (offset + np.column_stack([20 * y, 50 - y]) + np.random.default_rng(0).normal(0, 3, (60, 2))).astype(kind)
    source = data.from_arrays(X, y)
    splits = data.standard(source)
    folds = data.standard_folds(source, np.array_split(np.arange(60), 3))
    fold = folds.split(1)
    for prepared, train, val in (
        (splits, source.train, source.val),
        (fold, np.r_[:20, 40:60], np.arange(20, 40)),
    ):
        mean, scale = X[train].mean(axis=0), X[train].std(axis=0)
        np.testing.assert_allclose(prepared.train.X, (X[train] - mean) / scale, atol=1e-5)
        np.testing.assert_allclose(prepared.val.X, (X[val] - mean) / scale, atol=1e-5)
        np.testing.assert_allclose(prepared.mean, mean, rtol=1e-14)
        np.testing.assert_allclose(prepared.scale, scale, rtol=1e-6)


def test_a_constant_feature_is_only_centred_though_its_mean_rounds() -> None:
    X = np.column_stack([np.full(1000, 0.1), np.random.default_rng(0).standard_normal(1000)])
    X[-3:, 0] = 0.2  # in test
    rows = np.split(np.arange(1000), [700, 850])
    assert X[rows[0], 0].std() > 0
    splits = data.standard(Source("made up", X, np.arange(1000) % 2, *rows, ("a", "b")))
    assert splits.scale[0] == 1
    assert splits.test.X[-1, 0] == pytest.approx(0.1)


def test_a_label_too_wide_for_32_bits_is_out_of_range() -> None:
    X, rows = np.eye(6), np.split(np.arange(6), [2, 4])
    for label in (2**32, -(2**32)):
        y = np.array([0, 1, label, 1, 0, 1])
        with pytest.raises(ValueError, match=r"^labels must lie in \[0, 2\), got -?214748364\d at row 0 of val$"):
            data.standard(Source("made up", X, y, *rows, ("a", "b")))


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        ([(0, 20), (10, 40)], "parts must have no row in common, or what is held out would be trained on"),
        (
            [(0, 20), (20, 20), (20, 40)],
            r"parts must be two or more, none empty, of 40 examples in all, got \(20, 0, 20\)",
        ),
    ],
)
def test_parts_that_overlap_or_are_empty_are_refused(ends: list, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        data.standard_folds(data.load_digits(), [np.arange(*end) for end in ends])


def test_labels_may_be_text(tmp_path: Path) -> None:
    X, y = np.eye(20), np.array(["cat", "ant", "dog", "bee"] * 5)
    np.savez(tmp_path / "pool.npz", X=X, y=y)
    np.savez(
        tmp_path / "ready.npz",
        **{f"X_{role}": X for role in ("train", "val", "test")},
        **{f"y_{role}": labels for role, labels in (("train", y), ("val", y[::-1]), ("test", y))},
    )
    sources = [data.load(tmp_path / "pool.npz"), data.load(tmp_path / "ready.npz")]
    for source in (*sources, data.from_arrays(X, y), data.from_arrays(X, y.astype(object))):
        assert source.class_names == ("ant", "bee", "cat", "dog")
        np.testing.assert_array_equal(np.array(source.class_names)[source.y[:20]], y)
        assert data.standard(source).num_classes == 4
    np.testing.assert_array_equal(np.array(source.class_names)[sources[1].y[sources[1].val]], y[::-1])


def test_splits_are_disjoint_and_whole() -> None:
    for by_class in (False, True):
        rows, stratified = hold_out(np.arange(1797) % 10, by_class=by_class)
        assert stratified == by_class
        assert {role: len(part) for role, part in rows.items()} == {"train": 1257, "val": 270, "test": 270}
        np.testing.assert_array_equal(np.sort(np.concatenate([*rows.values()])), np.arange(1797))
    with pytest.raises(ValueError, match="need an example each, got 2 examples"):
        hold_out(np.zeros(2))


@pytest.mark.parametrize("labels", [int, str])
def test_a_rare_class_is_held_out_by_class_whatever_the_order(labels: type) -> None:
    for seed in range(30):
        y = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2, 3], [99, 99, 2, 1])).astype(labels)
        splits = data.standard(data.from_arrays(np.eye(201), y))
        assert splits.num_classes == 4
        counts = [np.bincount(split.y, minlength=4) for _, split in splits.items()]
        assert (counts[0][2:] > 0).all()
        assert all(abs(count[0] - count[1]) <= 1 for count in counts)


def test_classes_too_small_to_divide_are_counted_wherever_they_fall() -> None:
    assert data.standard(data.from_arrays(np.eye(10), np.arange(10))).num_classes == 10


def test_balanced_weights_are_1_on_average_though_a_class_be_absent() -> None:
    y = np.array([0, 0, 0, 2])
    weights = data.balanced(y, 4)
    assert weights[y].mean() == 1
    np.testing.assert_array_equal(weights[[1, 3]], 0)


def test_fingerprint_changes_with_any_bit() -> None:
    first, second, third = (data.standard(data.load_digits()) for _ in range(3))
    assert first.fingerprint() == second.fingerprint()
    X = first.val.raw.copy()
    X[first.val.rows[17], 5] += 1
    second = dataclasses.replace(second, val=dataclasses.replace(second.val, raw=X, digest=""))
    third.val.y[17] ^= 1
    assert len({each.fingerprint() for each in (first, second, third)}) == 3


RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((40, 3)), np.arange(40) % 4
READY = {f"{a}_{role}": v for role in ("train", "val", "test") for a, v in (("X", X), ("y", Y))}


def test_npz_of_one_pool_is_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "features.npz", X=X, y=Y)
    splits = data.standard(data.load(tmp_path / "features.npz"))
    assert [len(split.y) for _, split in splits.items()] == [28, 6, 6]
    assert splits.num_classes == 4
    assert splits.name == "features/standard"


def test_npz_of_ready_splits_is_kept(tmp_path: Path) -> None:
    arrays = READY | {"X_test": np.ones((2, 3), np.uint8), "y_test": np.array([3, 0], np.uint8)}
    np.savez(tmp_path / "features.npz", **arrays)
    splits = data.standard(data.load(tmp_path / "features.npz"))
    assert [len(split.y) for _, split in splits.items()] == [40, 40, 2]
    np.testing.assert_array_equal(splits.test.y, [3, 0])


BAD_NPZ = {
    "other arrays": ({"features": X}, ValueError, "must hold X and y, or X_train, .*; it holds features"),
    "no labels": ({"X": X}, ValueError, "must hold X and y, .*; it holds X"),
    "lengths": ({"X": X, "y": Y[:-1]}, ValueError, "must have the same length, got 40 examples and 39 labels"),
    "rank": ({"X": X[0], "y": Y}, ValueError, r"X must have shape \[N, D\] and y shape \[N\], got \[3\] and \[40\]"),
    "empty": ({"X": X[:0], "y": Y[:0]}, ValueError, "must hold at least one example"),
    "too few": ({"X": X[:2], "y": Y[:2]}, ValueError, "train, val and test need an example each, got 2"),
    "NaN": (
        {"X": np.where(np.eye(40, 3), np.nan, X), "y": Y},
        ValueError,
        "X must be finite, got nan at row 0, column 0",
    ),
    "infinite": ({"X": np.where(np.eye(40, 3), np.inf, X), "y": Y}, ValueError, "X must be finite, got inf"),
    "too large": ({"X": X * 1e300, "y": Y}, ValueError, "must be finite"),
    "text": ({"X": X.astype(str), "y": Y}, TypeError, "X must hold real numbers, got <U"),
    "complex": ({"X": X * 1j, "y": Y}, TypeError, "X must hold real numbers, got complex128"),
    "float labels": ({"X": X, "y": Y * 1.0}, TypeError, "integer labels, got float64: y.astype"),
    "negative label": ({"X": X, "y": Y - 1}, ValueError, r"bad.npz: y must hold labels not below 0, got -1 at row"),
    "one class": ({"X": X, "y": Y * 0}, ValueError, "train must hold at least two classes, got only class 0"),
    "widths": (READY | {"X_val": X[:, :2]}, ValueError, r"X_val must have 3 features as X_train, got 2"),
    "empty test": (READY | {"X_test": X[:0], "y_test": Y[:0]}, ValueError, "X_test must hold at least one example"),
    "objects": ({"X": np.array([print] * 4), "y": Y}, ValueError, "cannot be read as an .npz of plain arrays"),
}


@pytest.mark.parametrize("mistake", BAD_NPZ)
def test_a_bad_npz_is_refused(mistake: str, tmp_path: Path) -> None:
    arrays, error, sentence = BAD_NPZ[mistake]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(error, match=sentence):
        data.standard(data.load(tmp_path / "bad.npz"))


def test_a_file_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "large.npz", X=X, y=Y)
    monkeypatch.setattr("jaxcls.memory.host", lambda: 1000)
    with pytest.raises(ValueError, match=r"its X takes \d{4} bytes, more than this machine has$"):
        data.load(tmp_path / "large.npz")


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04 no zip", b"no zip at all", np.random.default_rng(0).bytes(999)])
def test_a_file_that_is_no_npz_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(raw)
    with pytest.raises(ValueError, match=r"bad\.npz cannot be read as an \.npz"):
        data.load(tmp_path / "bad.npz")


def test_a_truncated_npz_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", X=X, y=Y)
    (tmp_path / "bad.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"bad\.npz cannot be read as an \.npz"):
        data.load(tmp_path / "bad.npz")


def test_a_missing_npz_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file, expected an \.npz with X and y"):
        data.load(tmp_path / "absent.npz")


NAMES = np.array(["ant", "bee", "cat", "dog"])[Y]


def write_features(path: Path) -> None:
    match path.suffix:
        case ".npy":
            np.save(path, X)
        case ".npz":
            np.savez(path, X=X, other=Y)
        case ".safetensors":
            safetensors.numpy.save_file({"X": X, "other": Y}, path)
        case ".pt":
            torch.save(torch.tensor(X), path)


def write_labels(path: Path, labels: np.ndarray) -> None:
    match path.suffix:
        case ".npy":
            np.save(path, labels)
        case ".txt":
            path.write_text("".join(f"{label}\n" for label in labels))
        case ".csv":
            path.write_text("id,label\n" + "".join(f"{k},{label}\n" for k, label in enumerate(labels)))
        case ".pt":
            torch.save({"y": torch.tensor(labels)}, path)


@pytest.mark.parametrize("of_features", [".npy", ".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize("of_labels", [".npy", ".txt", ".csv", ".pt"])
def test_features_and_labels_are_read_from_files_of_any_kind(of_features: str, of_labels: str, tmp_path: Path) -> None:
    features, labels = tmp_path / f"feats{of_features}", tmp_path / f"labels{of_labels}"
    write_features(features)
    for y in (Y, *([NAMES] if of_labels != ".pt" else [])):
        write_labels(labels, y)
        source, expected = data.load(features, labels), data.from_arrays(X, y)
        assert source.class_names == expected.class_names
        for found, array in ((source.X, X), (source.y, expected.y), (source.test, expected.test)):
            np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(data.load_features(features), X)


def test_bfloat16_and_ready_splits_of_torch_are_read(tmp_path: Path) -> None:
    tensors = {name: torch.tensor(array) for name, array in READY.items()}
    torch.save(tensors | {"X_val": tensors["X_val"].bfloat16(), "epoch": 3}, tmp_path / "ready.pt")
    source = data.load(tmp_path / "ready.pt")
    np.testing.assert_array_equal(source.X[source.train], X)
    np.testing.assert_allclose(source.X[source.val], X, rtol=1e-2)


def header(shape: str) -> bytes:
    """An ``.npy`` that says it has this shape, and holds 40 numbers."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(320)


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "another kind": (
        "feats.xlsx",
        b"",
        r"feats\.xlsx must end in \.npz, \.npy, \.safetensors, \.pt, \.parquet, \.csv, \.txt$",
    ),
    "more than it holds": (
        "feats.npy",
        header("(1000000000, 1000)"),
        r"feats\.npy cannot be read as an \.npy of plain",
    ),
    "no numbers": ("feats.npy", header("'all'"), r"feats\.npy cannot be read as an \.npy of plain arrays: "),
    "code": ("feats.pt", pickle.dumps(Evil()), r"feats\.pt cannot be read as an \.pt of plain arrays: "),
    "no tensors": ("feats.safetensors", b"\x08" + bytes(7) + b'{"X":7} ', r"feats\.safetensors cannot be read as an"),
    "no text": ("feats.csv", b"\xff\xfe", r"feats\.csv cannot be read as an \.csv of plain arrays: "),
    "no label": ("feats.csv", b"id,name\n1,a\n", r"it must have a column label, or names must give another: it has id"),
    "ragged": ("feats.csv", b"id,label\n1,a\n2\n", r"feats\.csv cannot be read as an \.csv of plain arrays: "),
    "labels alone": ("feats.txt", b"1\n2\n", r"feats\.txt must hold X and y, or X_train, .*; it holds y$"),
    "features alone": (
        "feats.npy",
        header("(8, 5)"),
        r"feats\.npy must hold X and y, .*; it holds an array without",
    ),
}


@pytest.mark.parametrize("mistake", BAD_FILES)
def test_a_bad_file_is_one_line(mistake: str, tmp_path: Path) -> None:
    name, raw, sentence = BAD_FILES[mistake]
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=sentence) as error:
        data.load(tmp_path / name)
    assert "\n" not in str(error.value)


def test_labels_of_another_length_name_both_files(tmp_path: Path) -> None:
    np.save(tmp_path / "feats.npy", X)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    sentence = r"feats\.npy, .*labels\.txt: X and y must have the same length, got 40 examples and 2 labels"
    with pytest.raises(ValueError, match=sentence):
        data.load(tmp_path / "feats.npy", tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("split", "error", "sentence"),
    [
        ((X, Y[:-1]), ValueError, "X and y must have the same length"),
        ((X.astype(complex), Y), TypeError, "X must hold real numbers, got complex128"),
        ((X.tolist(), Y), TypeError, "X must be a plain array, got list"),
        ((X, np.ma.masked_array(Y, Y == 0)), TypeError, "y must be a plain array, got MaskedArray"),
        ((X, Y.astype(float)), TypeError, "y must hold integer labels"),
    ],
)
@pytest.mark.usefixtures("no_type_checker")
def test_a_bad_split_is_refused(split: tuple, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Split(*split)


@pytest.mark.parametrize("raw_dtype", ["u1", "i2", "i8", "f2", ">f4", "f8", "g"])
def test_features_of_any_real_dtype_in_any_layout_are_prepared_alike(raw_dtype: str) -> None:
    X, y = RNG.integers(0, 200, (60, 7)), np.arange(60) % 3
    train, val, test = np.split(np.arange(60), [40, 50])
    expected = data.standard(Source("plain", X.astype(np.float32), y, train, val, test, ("a", "b", "c")))
    wide = np.zeros((120, 14), raw_dtype)
    wide[::2, ::2] = X
    layouts = {"Fortran": np.asfortranarray(X.astype(raw_dtype)), "strided": wide[::2, ::2]}
    layouts["strided"].flags.writeable = False
    prints = set()
    for layout, raw in layouts.items():
        found = data.standard(Source("plain", raw, y.astype(">i8"), train, val, test, ("a", "b", "c")))
        prints.add(found.fingerprint())
        for (role, split), (_, alike) in zip(found.items(), expected.items(), strict=True):
            np.testing.assert_allclose(split.X, alike.X, rtol=1e-6, atol=1e-7, err_msg=f"{layout}, {role}")
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("labels", "names", "note"),
    [
        ([0, 1, 2], ("0", "1", "2"), ""),
        ([0, 10, 20], ("0", "10", "20"), "the labels 0, 10, 20 are classes 0 to 2"),
        ([2**40, 3, 7], ("3", "7", str(2**40)), f"the labels 3, 7, {2**40} are classes 0 to 2"),
        (["b", "a", "c"], ("a", "b", "c"), ""),
    ],
    ids=str,
)
def test_labels_are_numbered_and_kept_as_names(labels: list, names: tuple[str, ...], note: str) -> None:
    y = np.array(labels * 10)
    source = data.from_arrays(np.eye(30), y)
    assert (source.class_names, source.note) == (names, note)
    np.testing.assert_array_equal(np.array(source.class_names)[source.y], y.astype(str))


def test_labels_of_several_integer_dtypes_are_one_set_of_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "ready.npz", **READY | {"y_train": Y.astype(np.uint64), "y_test": Y.astype(np.int8)})
    assert data.load(tmp_path / "ready.npz").class_names == ("0", "1", "2", "3")


def test_without_roles_all_rows_are_train_and_nothing_is_noted(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", X=X[:2], y=Y[:2])
    source = data.load(tmp_path / "two.npz", roles=())
    assert (sorted(source.train), len(source.val), len(source.test), source.note) == ([0, 1], 0, 0, "")


def test_a_class_without_an_example_in_train_is_noted(tmp_path: Path) -> None:
    np.savez(tmp_path / "ready.npz", **READY | {"y_val": Y + 1})
    source = data.load(tmp_path / "ready.npz")
    assert source.note == f"{tmp_path}/ready.npz: train has no example of 4"
    assert data.standard(source).num_classes == 5


def test_a_class_too_rare_to_be_divided_is_noted() -> None:
    source = data.from_arrays(np.eye(9), np.array([0, 1, 2, 3, 4, 5, 6, 7, 7]))
    assert source.note == "a class has too few examples, so val and test are drawn without regard to classes"


def test_mirror_images_are_more_examples_of_train_alone() -> None:
    colours = np.arange(6 * 24).reshape(6, 24).astype(np.uint8)
    pixels = np.arange(24).reshape(3, 2, 4).transpose(1, 2, 0)  # channel by channel, as in CIFAR-10
    rows = np.array([4, 1]), np.array([0, 3]), np.array([5])
    source = Source("made up", colours, np.arange(6) % 2, *rows, ("a", "b"), pixels)
    plain = data.standard(source)
    both = data.mirrored(plain)
    pictures = colours[rows[0]].reshape(2, 3, 2, 4)
    np.testing.assert_array_equal(both.train[:], np.r_[pictures, pictures[..., ::-1]].reshape(4, 24))
    np.testing.assert_array_equal(both.train.y, np.tile(plain.train.y, 2))
    for one, other in ((both.val, plain.val), (both.test, plain.test)):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.X, other.X)
    np.testing.assert_array_equal(both.mean, plain.mean)
    np.testing.assert_array_equal(both.examples.X, np.concatenate([both.train.X, both.val.X]))
    assert len({both.fingerprint(), plain.fingerprint()}) == 2
    with pytest.raises(ValueError, match=r"^mirrored must be given pictures, .* got features without pixels$"):
        data.mirrored(data.standard(dataclasses.replace(source, pixels=None)))
