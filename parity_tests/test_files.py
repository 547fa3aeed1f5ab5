"""Features that are read when they are used: pieces of any kind, as if they were one array."""

import dataclasses
import gc
import io
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy

from jaxcls import classifier, data, logistic, probe, sweep
from jaxcls.data import Rows
from jaxcls.grid import Grid

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((500, 6)).astype(np.float32), np.arange(500) % 5


class Slices:
    """Rows that can be sliced and nothing else, as a column of Hugging Face's datasets."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice) -> list:
        assert isinstance(rows, slice)
        return self.array[rows].tolist()


def npy(array: np.ndarray, folder: Path) -> Rows:
    np.save(folder / f"{len(array)}.npy", array)
    return data.load_features(folder / f"{len(array)}.npy")


PIECES: dict[str, Callable[[Path], list[Any]]] = {
    "an array": lambda _: [X],
    "arrays": lambda _: [X[:7], X[7:7], X[7:]],
    "a file": lambda folder: [npy(X, folder)],
    "files": lambda folder: [npy(X[:123], folder), npy(X[123:500], folder)],
    "what can be sliced": lambda _: [Slices(X[:200].astype(np.float64)), X[200:]],
}


@pytest.mark.parametrize("kind", PIECES)
def test_rows_are_those_of_one_array(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, with repeats, near and far; read in runs that end at gaps, at pieces and at a length."""
    monkeypatch.setattr("jaxcls.data.rows.GAP", 50)
    monkeypatch.setattr("jaxcls.data.rows.RUN", 24 * 40)
    pieces = [piece for piece in PIECES[kind](tmp_path) if len(piece)]
    rows = Rows(pieces)
    assert (len(rows), rows.shape, rows.ndim, rows.size) == (500, (500, 6), 2, 3000)
    for which in (
        RNG.permutation(500),
        RNG.integers(0, 500, 700),
        np.array([499]),
        np.array([], int),
        np.arange(90, 300),
    ):
        np.testing.assert_array_equal(rows[which], X[which])
    for some in (slice(None), slice(100, 230), slice(490, 900), slice(5, 5)):
        np.testing.assert_array_equal(rows[some], X[some])
    np.testing.assert_array_equal(np.asarray(rows), X)


def test_rows_keep_the_dtype_of_the_file_in_the_byte_order_of_the_machine(tmp_path: Path) -> None:
    for dtype in (">f4", "<f2", "u1"):
        np.save(tmp_path / "X.npy", X.astype(dtype))
        rows = data.load_features(tmp_path / "X.npy")
        assert rows.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(rows[3:9], X.astype(dtype)[3:9])
    half = X.astype(jnp.bfloat16)
    safetensors.numpy.save_file({"emb": half}, tmp_path / "X.safetensors")
    rows = data.load_features(tmp_path / "X.safetensors")
    assert rows.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rows[:], half)


def test_pieces_of_several_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^b must have 6 features as a, got 5$"):
        Rows([X, X[:, :5]], ["a", "b"])
    with pytest.raises(ValueError, match=r"^b must have shape \[N, D\], got \['N'\]$"):
        Rows([X, Y], ["a", "b"])


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    rows = npy(X, tmp_path)
    with (tmp_path / "500.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match=r"500\.npy has changed since it was opened$"):
        rows[:]
    rows = npy(X, tmp_path)
    os.utime(tmp_path / "500.npy", (0, 0))
    with pytest.raises(ValueError, match=r"500\.npy has changed since it was opened$"):
        rows[:3]


def test_a_disk_that_fails_ends_a_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the run is resumed from its last chunk, to the same result."""
    np.savez(tmp_path / "f.npz", X=X, y=Y)
    splits, grid = data.standard(data.load(tmp_path / "f.npz")), Grid(lr=[0.1], reg=[0.0])
    options = {"steps": 30, "batch_size": 10, "chunk_steps": 10, "stream": True}
    whole = sweep.run(splits, grid, **options)
    saved: list[sweep.Snapshot] = []

    def save(take: Callable[[], sweep.Snapshot]) -> None:
        saved.append(take())
        if len(saved) == 2:
            monkeypatch.setattr(os, "preadv", fail)

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match=r"f\.npz cannot be read: Input/output error$"):
        sweep.run(splits, grid, save=save, **options)
    monkeypatch.undo()
    resumed = sweep.run(splits, grid, resume=saved[-1], **options)
    np.testing.assert_array_equal(resumed.losses, whole.losses)


def test_a_number_that_is_not_finite_is_found_with_its_file_and_row(tmp_path: Path) -> None:
    for number, part in enumerate(np.split(X, [200, 350])):
        spoilt = part.copy()
        if number == 2:
            spoilt[17, 4] = np.nan
        np.save(tmp_path / f"emb_{number}.npy", spoilt)
    np.save(tmp_path / "y.npy", Y)
    source = data.load(tmp_path / "emb_*.npy", tmp_path / "y.npy")
    with pytest.raises(ValueError, match=r"emb_2\.npy must be finite, got nan at row 17, column 4$"):
        data.standard(source)


def test_files_of_a_pattern_or_a_folder_are_one_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, part in enumerate(np.split(X, 25)):
        np.save(folder / f"emb_{number}.npy", part)
        np.save(tmp_path / f"y_{number}.npy", Y[20 * number : 20 * number + 20])
    for path in (folder, folder / "emb_*.npy"):
        source = data.load(path, tmp_path / "y_*.npy")
        np.testing.assert_array_equal(source.X, X)
        np.testing.assert_array_equal(source.y, Y)
    with pytest.raises(FileNotFoundError, match=r"none_\*\.npy: no such files, expected some of \.npz, "):
        data.load(folder / "none_*.npy", tmp_path / "y_0.npy")
    with pytest.raises(ValueError, match="X and y must have the same length, got 500 examples and 20 labels"):
        data.load(folder, tmp_path / "y_0.npy")
    (folder / "emb_7.npy").write_bytes((folder / "emb_7.npy").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"emb_7\.npy cannot be read as an \.npy of plain arrays: it is truncated"):
        data.load(folder, tmp_path / "y_*.npy")


def test_a_parquet_file_or_a_folder_of_them_is_read(tmp_path: Path) -> None:
    names = np.array(["ant", "bee", "cat", "dog", "eel"])[Y]
    for fixed in (False, True):
        kind = pa.list_(pa.float32(), 6) if fixed else pa.list_(pa.float32())
        table = pa.table({"emb": pa.array(list(X), kind), "label": names})
        folder = tmp_path / str(fixed)
        folder.mkdir()
        pyarrow.parquet.write_table(table.slice(0, 300), folder / "0.parquet", row_group_size=70)
        pyarrow.parquet.write_table(table.slice(300), folder / "1.parquet")
        source = data.load(folder, names=("emb", "label"))
        np.testing.assert_array_equal(source.X, X)
        np.testing.assert_array_equal(np.array(source.class_names)[source.y], names)
    ragged = pa.table({"emb": [[1.0], [1.0, 2.0]], "label": [0, 1]})
    pyarrow.parquet.write_table(ragged, tmp_path / "ragged.parquet")
    with pytest.raises(ValueError, match=r"its emb must hold lists of one length, got 1 to 2$"):
        data.load(tmp_path / "ragged.parquet", names=("emb", "label"))
    pyarrow.parquet.write_table(pa.table({"emb": [[1.0], None], "label": [0, 1]}), tmp_path / "missing.parquet")
    with pytest.raises(ValueError, match=r"its emb has missing values$"):
        data.load(tmp_path / "missing.parquet", names=("emb", "label"))


def test_a_parquet_file_is_decoded_without_a_second_copy_of_it(tmp_path: Path) -> None:
    table = pa.table({"X": list(np.tile(X, (100, 4))), "y": np.tile(Y, 100)})
    pyarrow.parquet.write_table(table, tmp_path / "X.parquet", use_dictionary=False, compression="none")
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool := pa.proxy_memory_pool(before))
    try:
        found = data.load(tmp_path / "X.parquet").X
    finally:
        pa.set_memory_pool(before)
    assert isinstance(found, np.ndarray)
    assert 0 < pool.max_memory() < found.nbytes / 2


def test_a_parquet_file_larger_than_memory_is_decoded_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr("jaxcls.memory.host", lambda: 4000)
    monkeypatch.setattr("jaxcls.data.files.DECODED", 64)
    pyarrow.parquet.write_table(pa.table({"X": list(X), "y": Y}), tmp_path / "large.parquet", row_group_size=130)
    source = data.load(tmp_path / "large.parquet")
    assert isinstance(source.X, Rows)
    assert [path.stat().st_size for path in temporary.iterdir()] == [X.nbytes]
    np.testing.assert_array_equal(source.X[:], X)
    np.testing.assert_array_equal(source.y, Y)
    del source
    gc.collect()
    assert not list(temporary.iterdir())
    uneven = [*X[:400].tolist(), *X[400:, :5].tolist()]
    pyarrow.parquet.write_table(pa.table({"X": uneven, "y": Y}), tmp_path / "uneven.parquet")
    with pytest.raises(ValueError, match=r"its X must hold lists of one length, got 5 to 6$"):
        data.load(tmp_path / "uneven.parquet")
    pyarrow.parquet.write_table(pa.table({"X": uneven, "y": Y}), tmp_path / "uneven.parquet", row_group_size=400)
    monkeypatch.setattr("jaxcls.data.files.DECODED", 400)
    with pytest.raises(ValueError, match=r"it must hold lists of one length, got 6 and 5$"):
        data.load(tmp_path / "uneven.parquet")
    assert not list(temporary.iterdir())
    if Path("/dev/full").exists():
        monkeypatch.setattr(os, "fdopen", lambda number, mode: [os.close(number), io.FileIO("/dev/full", mode)][1])
        with pytest.raises(ValueError, match=r"its rows need more room than .*temporary has: TMPDIR names another fol"):
            data.load(tmp_path / "large.parquet")
        assert not list(temporary.iterdir())


def test_a_csv_holds_features_and_labels(tmp_path: Path) -> None:
    lines = ["a,label,b", *(f"{a},{y},{b}" for (a, b), y in zip(X[:, :2], Y, strict=True))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    source = data.load(tmp_path / "table.csv")
    np.testing.assert_allclose(source.X, X[:, :2], rtol=1e-6)
    np.testing.assert_array_equal(source.y, Y)
    for text, message in {
        "a;b;label\n1;2;0": "its columns must be separated by commas, its header is a;b;label",
        ",a,label\n0,1,2": "its columns must have names, column 0 has none",
        "a,label\n1,x\n1,\n": "its labels must not be empty, that of row 1 is",
        "a,b,a,label\n1,2,3,x": "its columns must have names of their own, 2 are a",
        "a,b\n1,x": "it must have a column label, or names must give another: it has a, b",
    }.items():
        (tmp_path / "table.csv").write_text(text)
        with pytest.raises(ValueError, match=rf"{message}$"):
            data.load(tmp_path / "table.csv")
    (tmp_path / "table.csv").write_text("a, b\n1, 2\n3, 4\n", "utf-8-sig")
    np.testing.assert_array_equal(data.load_features(tmp_path / "table.csv")[:], [[1, 2], [3, 4]])
    (tmp_path / "table.csv").write_text("a,label,b\n1,0,2\n1,0\n")
    with pytest.raises(ValueError, match=r"its rows must have the 3 columns of its header, row 1 has 2$"):
        data.load(tmp_path / "table.csv")
    (tmp_path / "table.csv").write_text("a,label,b\n1,0,two\n")
    with pytest.raises(ValueError, match=r"its features must be numbers, got 'two' in row 0, column b$"):
        data.load(tmp_path / "table.csv")
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(ValueError, match=r"it must have a header and a row for each example$"):
        data.load(tmp_path / "table.csv")


def test_columns_of_a_csv_are_known_by_name(tmp_path: Path) -> None:
    """Labels under any name; features of other files in whatever order they stand, beside whatever else."""
    (tmp_path / "own.csv").write_text("height,kind,y,width\n1,x,5,3\n2,y,6,4\n")
    source = data.load(tmp_path / "own.csv", names=("X", "kind"), roles=())
    assert (source.feature_names, source.class_names) == (("height", "y", "width"), ("x", "y"))
    np.testing.assert_array_equal(source.X, [[1, 5, 3], [2, 6, 4]])
    (tmp_path / "labels.csv").write_text("id,kind\n7,x\n8,y\n")
    apart = data.load(tmp_path / "own.csv", tmp_path / "labels.csv", names=("X", "kind"), roles=())
    assert apart.feature_names == source.feature_names
    np.testing.assert_array_equal(apart.y, source.y)
    np.testing.assert_array_equal(data.load_features(tmp_path / "own.csv", columns=source.feature_names), source.X)
    (tmp_path / "a.csv").write_text("height,label,width\n1,0,3\n2,1,4\n")
    (tmp_path / "b.csv").write_text("width,label,id,height\n3,0,a,1\n4,1,b,2\n")
    np.testing.assert_array_equal(data.load(tmp_path / "[ab].csv", roles=()).X, [[1, 3], [2, 4]] * 2)
    np.testing.assert_array_equal(data.load_features(tmp_path / "b.csv", columns=("height",)), [[1], [2]])
    with pytest.raises(ValueError, match=r"it must have a column depth: it has height, label, width$"):
        data.load_features(tmp_path / "a.csv", columns=("height", "width", "depth"))
    with pytest.raises(
        ValueError, match=r"it must have a column label, or names must give another: it has height, kind, y, width$"
    ):
        data.load(tmp_path / "own.csv")


def test_a_member_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    """It would be read on into the next one."""
    np.savez(tmp_path / "f.npz", X=X, y=Y)
    raw = (tmp_path / "f.npz").read_bytes().replace(b"(500, 6)", b"(900, 6)")
    (tmp_path / "f.npz").write_bytes(raw)
    with pytest.raises(
        ValueError, match=r"f\.npz cannot be read as an \.npz of plain arrays: its X must take 21\d+ bytes"
    ):
        data.load(tmp_path / "f.npz")


def test_a_damaged_member_is_noticed_when_it_is_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", X=X, y=Y)
    raw = bytearray((tmp_path / "f.npz").read_bytes())
    raw[4000] ^= 1
    (tmp_path / "f.npz").write_bytes(raw)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        data.load(tmp_path / "f.npz")


class Counted(data.rows.OnDisk):
    """A file that counts the bytes that are read of it."""

    count = 0

    def _fill(self, file: int, into: memoryview, at: int) -> None:
        Counted.count += len(into)
        super()._fill(file, into, at)


def counted(tmp_path: Path) -> data.Splits:
    """`X` on a disk, of which `Counted.count` bytes are read."""
    (tmp_path / "X").write_bytes(X.tobytes())
    file = Counted(tmp_path / "X", 0, X.shape, X.dtype)
    train, val = np.split(np.arange(500), [400])
    return data.standard(data.Source("made up", Rows([file]), Y, train, val, val, tuple("abcde")))


def test_one_pass_feeds_all_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty cells read as many bytes as one; and nets of three sizes, each a program, as many as those of one."""
    monkeypatch.setattr("jaxcls.engine.planning.groups", lambda sizes, work: [(size,) for size in sizes])
    splits = counted(tmp_path)
    options: dict[str, Any] = {"steps": 40, "batch_size": 10, "sampling": "epochs", "stream": True}

    def count(grid: Grid, **more: object) -> int:
        before = Counted.count
        sweep.run(splits, grid, **options, **more)
        return Counted.count - before

    linear = [count(Grid(lr=np.logspace(-3, 0, cells).tolist(), reg=[0.0])) for cells in (1, 20)]
    assert linear[0] == linear[1] < 3 * X.nbytes  # an epoch, and the evaluation of train, val and test
    of_nets = {"classifier": classifier.two_layer_net(), "history": True}
    nets = [count(Grid(lr=[0.1], reg=[0.0], hidden=hidden), **of_nets) for hidden in ([3], [3, 5, 9])]
    assert nets[0] == nets[1]


def test_the_solver_reads_what_it_does_not_load(tmp_path: Path) -> None:
    """To the optimum it finds in memory, of several weightings too; certified as well."""
    np.savez(tmp_path / "f.npz", X=X.astype(np.float16), y=Y)
    splits = data.standard(data.load(tmp_path / "f.npz"))
    assert isinstance(splits.train.raw, Rows)
    for certify in (False, True):
        loaded, read = (probe.run(splits, [1e-1, 1e-3], stream=stream, certify=certify) for stream in (False, True))
        assert read.table["converged"].all()
        np.testing.assert_allclose(read.table["train_loss"], loaded.table["train_loss"], rtol=1e-5)
        np.testing.assert_allclose(read.params, loaded.params, atol=2e-3)


def test_the_solver_reads_a_file_for_several_values_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the optimum of each, blocks of values of one length or not, in fewer passes than one value after another."""
    splits, reg = counted(tmp_path), [*np.logspace(-1, -5, 6).tolist(), 1e-5]
    alone = probe.run(splits, reg, stream=False)
    read = []
    for at_once in (1, 3, 7):
        monkeypatch.setattr("jaxcls.solver.lbfgs.COLUMNS", 5 * at_once + 4)
        before = Counted.count
        found = probe.run(splits, reg, stream=True)
        read.append(Counted.count - before)
        assert found.table["converged"].all()
        np.testing.assert_allclose(found.table["train_loss"], alone.table["train_loss"], rtol=1e-5)
        np.testing.assert_allclose(found.params, alone.params, atol=2e-3)
    assert read[0] > read[1] > read[2]
    weights = np.stack([np.arange(400) % 2, np.ones(400)], axis=1)
    of_files, loaded = (
        logistic.path(examples, splits.train.y, reg, weights=weights, moments=(splits.mean, splits.scale))
        for examples in (splits.train, splits.train[:])
    )
    np.testing.assert_allclose(of_files.loss, loaded.loss, rtol=1e-5)
    np.testing.assert_allclose(of_files.W, loaded.W, atol=2e-3)


def test_a_constant_is_one_though_its_differences_from_the_rest_round() -> None:
    """Of a part of the rows, where it is another than that of most."""
    constant = np.where(np.arange(997) < 301, 0.7, 0.1)[:, None]
    found = data.moments.scan(constant, (np.arange(997) >= 301).astype(int), 2)
    assert [moments.scale().item() for moments in found.groups] == [1.0, 1.0]
    differences = np.full(301, 0.7) - 0.1
    assert (differences - differences.sum() / 301).any()


def test_an_outlier_that_is_held_out_takes_no_digits_from_the_rest() -> None:
    spoilt = X.astype(np.float64)
    spoilt[0, 3] = 1e30
    group = np.where(np.arange(500) < 100, 0, 1)
    found = data.moments.scan(spoilt, group, 2)
    np.testing.assert_allclose(found.groups[1].scale(), spoilt[100:].std(axis=0), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f2", "f4", "u1", "f8"])
def test_moments_are_those_of_numpy(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of groups of rows, in blocks of a few; the digest is the same for any number of threads."""
    monkeypatch.setattr("jaxcls.data.moments.BLOCK", 50)
    monkeypatch.setattr("jaxcls.data.moments.READ", 130)
    raw = (40 * X + 100).astype(dtype)
    group = RNG.integers(-1, 3, 500)
    found = data.moments.scan(raw, group, 3)
    for number, moments in enumerate(found.groups):
        mine = raw[group == number].astype(np.float64)
        assert moments.num_examples == len(mine)
        np.testing.assert_allclose(moments.mean, mine.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(moments.scale(), mine.std(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found.low, raw.min(axis=0))
    np.testing.assert_array_equal(found.high, raw.max(axis=0))
    changed = raw.copy()
    changed[499, 5] += 1
    assert data.moments.scan(changed, group, 3).digest != found.digest


def test_features_too_far_from_the_mean_of_train_are_refused() -> None:
    far = X.astype(np.float64)
    far[0, 3] = 1e300
    source = data.from_arrays(far, Y)
    train, rest = source.train[source.train > 0], np.r_[0, source.val]
    with pytest.raises(
        ValueError, match=r"^X must be finite in float32 once standardised, column 3 of some example is 1"
    ):
        data.standard(dataclasses.replace(source, train=train, val=rest))


def test_a_disk_that_fails_ends_a_solver_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same problem is then solved from the same file."""
    np.savez(tmp_path / "f.npz", X=X, y=Y)
    splits, real, calls = data.standard(data.load(tmp_path / "f.npz")), os.preadv, itertools.count()

    def fail(*of: Any) -> int:
        if next(calls) > 4:
            raise OSError(5, "Input/output error")
        return real(*of)

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match=r"f\.npz cannot be read: Input/output error$"):
        probe.run(splits, [1e-2], stream=True)
    monkeypatch.undo()
    assert probe.run(splits, [1e-2], stream=True).table["converged"].all()
    for wide in (False, True):
        with jax.enable_x64(wide):
            exact = data.standard(data.from_arrays(X.astype(np.float64), Y))  # in float32 prepared when it is read
            read, loaded = (probe.run(exact, [1e-2], stream=stream) for stream in (True, False))
        np.testing.assert_allclose(read.table["train_loss"], loaded.table["train_loss"], rtol=1e-5)


@pytest.mark.usefixtures("no_type_checker")
def test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    rows = npy(X, tmp_path)
    for wrong in ([-1], [500], X[:, 0] > 0):
        with pytest.raises(IndexError, match=r"^rows must be numbers from 0 to 499$"):
            rows[np.asarray(wrong)]
    with pytest.raises(ValueError, match=r"^X must be of one dtype, got int64 and, from row 1 on, float64$"):
        Rows([[[0, 1], [0.5, 2.0]]])[:]


def test_a_thousand_files_are_not_open_at_once(tmp_path: Path) -> None:
    for number in range(50):
        np.save(tmp_path / f"{number}.npy", X[10 * number : 10 * number + 10])
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    rows = data.load_features(tmp_path)
    np.testing.assert_array_equal(rows[:], X)
    if before:
        assert len(os.listdir("/proc/self/fd")) < before + 20
