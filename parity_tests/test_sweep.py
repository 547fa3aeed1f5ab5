"""The sweep: equal to one cell at a time, independent cells, selection, blocks."""

import contextlib
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcls import data, engine, sampling, softmax, sweep, train
from jaxcls.classifier import linear, two_layer_net
from jaxcls.data import Split, Splits, load_digits, standard_folds
from jaxcls.grid import Grid, Points
from jaxcls.optimizers import Optimizer
from jaxcls.result import SweepResult
from jaxcls.table import SCORES, empty_table, rank_rows
from jaxcls.train import Hyper
from parity_tests.support.cases import named, slow
from parity_tests.support.results import assert_same_bits

GRID = Grid(lr=[0.03, 0.3], reg=[0.0, 1e-2, 0.1], seed=[0, 7])
TWO_CELLS = Grid([0.1, 1e30], [0.1])  # of several tests, compiled once for chunks of 10 and 5 steps


@pytest.fixture(scope="module")
def result(digits: Splits) -> SweepResult:
    return sweep.run(digits, GRID, steps=150, batch_size=50)


def alone(splits: Splits, lr: float, reg: float, seed: int, optimizer: Optimizer, steps: int) -> tuple:
    """One cell, without the sweep: its weights and losses."""
    hyper = Hyper(jnp.float32(lr), jnp.float32(reg))
    state = train.init(optimizer, softmax.init(65, 10, key=jax.random.key(seed)), hyper)
    X, y = softmax.append_ones(splits.train.X), jnp.asarray(splits.train.y)
    batches = sampling.minibatches(seed, range(steps), batch_size=50, num_examples=len(y))
    step = functools.partial(train.step, linear(), optimizer)
    state, losses = jax.jit(functools.partial(train.run, step))(state, hyper, X, y, batches)
    return state.params, losses


@pytest.mark.parametrize("row", range(len(GRID)))
def test_every_cell_is_what_it_would_be_alone(row: int, result: SweepResult, digits: Splits) -> None:
    W, losses = alone(digits, **GRID.cells()[row], optimizer=optax.sgd, steps=150)
    # Another shape of product adds up in another order: equal to rounding, not to the bit.
    np.testing.assert_allclose(result.losses[row], losses, rtol=1e-4)
    correct = softmax.predict(W, softmax.append_ones(digits.val.X)) == digits.val.y
    assert result.table["val_accuracy"][row] == pytest.approx(float(correct.mean()), abs=1.1 / 270)
    if row == result.best:
        np.testing.assert_allclose(result.params, W, atol=1e-4 * np.abs(W).max())


def test_scores_in_the_table_are_those_of_the_weights_with_penalty_on_train_alone(digits: Splits) -> None:
    folds = standard_folds(load_digits(), np.split(np.arange(900), [200, 500]))
    found = sweep.run(digits, Grid(lr=[0.3], reg=[0.1]), steps=60, batch_size=50)
    on_folds = sweep.run(folds, Grid(lr=[0.3], reg=[0.1], fold=[0, 1, 2]), steps=60, batch_size=50)
    alone = sweep.run(folds.split(1), Grid(lr=[0.3], reg=[0.1]), steps=60, batch_size=50)
    loss = jax.jit(softmax.loss)
    for result, splits, row in ((found, digits, found.table[0]), (alone, folds.split(1), on_folds.table[1])):
        for role, split, reg in (("train", splits.train, 0.1), ("val", splits.val, 0.0)):
            expected = loss(result.params, softmax.append_ones(split.X), split.y, reg)
            np.testing.assert_allclose(row[f"{role}_loss"], expected, rtol=1e-4, err_msg=role)
            accuracy = np.mean(softmax.predict(result.params, softmax.append_ones(split.X)) == split.y)
            np.testing.assert_allclose(row[f"{role}_accuracy"], accuracy, atol=1.1 / len(split.y), err_msg=role)


@pytest.mark.parametrize(
    "optimizer",
    [optax.adam, *slow(functools.partial(optax.sgd, momentum=0.9))],
    ids=["adam", "momentum"],
)
def test_other_optimizers_too(optimizer: Optimizer, digits: Splits) -> None:
    grid = Grid(lr=[0.001, 0.01], reg=[1e-3])
    found = sweep.run(digits, grid, steps=60, batch_size=50, optimizer=optimizer)
    for row, cell in enumerate(grid.cells()):
        _, losses = alone(digits, **cell, optimizer=optimizer, steps=60)
        np.testing.assert_allclose(found.losses[row], losses, rtol=1e-4)


OPTIMIZERS = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": functools.partial(optax.adamw, weight_decay=1e-2),
    "rmsprop": optax.rmsprop,
}


@pytest.mark.parametrize("optimizer", named(OPTIMIZERS, "momentum"))
@pytest.mark.parametrize("model", ["linear", "net"])
def test_cells_that_go_wrong_leave_the_others_as_they_were_bit_for_bit(
    model: str, optimizer: Optimizer, digits: Splits
) -> None:
    """Cells whose weights overflow, whose loss is infinite at step 0, whose learning rate is zero."""
    options = {"steps": 60, "optimizer": optimizer}
    options |= {"classifier": linear(init_scale=1.0) if model == "linear" else two_layer_net(init_scale=1.0)}
    hidden = [] if model == "linear" else [4, 9]
    calm = sweep.run(digits, Grid([0.01, 0.02, 0.03, 0.04], [0.0, 1e-2, 1e-3], hidden=hidden), **options)
    wild = sweep.run(digits, Grid([0.01, 1e30, 0.03, 0.0], [0.0, 1e-2, 3e38], hidden=hidden), **options)
    lr, reg, left = (wild.table[column] for column in ("lr", "reg", "diverged_at"))
    assert (left[(lr == 1e30) & (reg == 1e-2)] > 0).all()
    assert (left[reg == 3e38] == 0).all()
    assert (left[(reg < 1) & (lr < 1)] == -1).all()
    for row in np.flatnonzero(left >= 0):
        assert not np.isfinite(wild.losses[row, left[row] :]).any()  # it never comes back
    kept = (reg < 1) & ((lr == 0.01) | (lr == 0.03))
    assert kept.sum() == 4 * max(len(hidden), 1)
    np.testing.assert_array_equal(calm.losses[kept], wild.losses[kept])
    for column in SCORES:
        np.testing.assert_array_equal(calm.table[column][kept], wild.table[column][kept])


def test_every_cell_of_a_replicate_sees_the_same_minibatches_and_starts_alike(result: SweepResult) -> None:
    first = result.losses[:, 0].reshape(2, 3, 2)
    # At reg 0 the first loss depends on initial weights and first minibatch alone.
    assert first[0, 0, 0] == first[1, 0, 0]
    assert first[0, 0, 0] != first[0, 0, 1]


def test_rank_is_by_val_accuracy_then_val_loss_then_order(result: SweepResult) -> None:
    table = result.table
    expected = sorted(range(len(table)), key=lambda row: (-table["val_accuracy"][row], table["val_loss"][row], row))
    assert [int(row) for row in np.argsort(table["rank"])] == expected
    assert result.best == expected[0]


def test_ties_go_to_the_lower_val_loss(digits: Splits) -> None:
    found = sweep.run(digits, Grid(lr=[0.1], reg=[1e-5, 0.0, 2e-5]), steps=200)
    assert len(set(found.table["val_accuracy"])) == 1
    assert len(set(found.table["val_loss"])) == 3
    assert found.best == np.argmin(found.table["val_loss"])


def test_accuracies_that_differ_in_the_last_bit_are_a_tie() -> None:
    table = empty_table(Grid([0.1, 1.0], [0.0]))
    table["val_accuracy"], table["val_loss"] = [np.mean([0.1, 0.2, 0.3]), np.mean([0.3, 0.2, 0.1])], [2.0, 1.0]
    assert table["val_accuracy"][0] > table["val_accuracy"][1]
    rank_rows(table)
    assert table["rank"].tolist() == [2, 1]


def test_test_accuracy_of_the_best_cell(result: SweepResult, digits: Splits) -> None:
    predicted = softmax.predict(result.params, softmax.append_ones(digits.test.X))
    assert result.test_accuracy == pytest.approx(float((predicted == digits.test.y).mean()), abs=1.1 / 270)


@pytest.mark.parametrize("cells", [5, *slow(1, 4, 7, 12)])
def test_table_is_the_same_in_blocks_of_any_size(cells: int, result: SweepResult, digits: Splits) -> None:
    memory = engine.planning.nbytes(digits) + cells * engine.cells.estimate(engine.cells.problem(digits), batch_size=50)
    found = sweep.run(digits, GRID, steps=150, batch_size=50, memory=memory, stream=False)
    np.testing.assert_array_equal(found.table[["lr", "reg", "seed"]], result.table[["lr", "reg", "seed"]])
    np.testing.assert_allclose(found.losses, result.losses, rtol=1e-4)
    np.testing.assert_allclose(found.table["val_loss"], result.table["val_loss"], rtol=1e-4)
    np.testing.assert_allclose(found.params, result.params, atol=1e-4)


@pytest.mark.parametrize("nets_on_folds", [False, *slow(True)], ids=["linear", "nets, folds"])
def test_zero_padding_as_on_a_gpu_changes_nothing(
    nets_on_folds: bool, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, model = digits, linear()
    grid = Grid(lr=[0.1, 1e30], reg=[0.0, 1e-2])
    if nets_on_folds:
        splits, model = standard_folds(load_digits(), np.split(np.arange(400), [200])), two_layer_net(init_scale=0.1)
        grid = dataclasses.replace(grid, hidden=(5, 8), fold=(0, 1))
    history = not nets_on_folds
    run = functools.partial(sweep.run, splits, grid, steps=61, classifier=model, optimizer=optax.adam, history=history)
    plain = run()
    monkeypatch.setattr(engine.planning, "alignment", lambda devices: 48)
    zeros = run()
    (group,) = sweep.plan(splits, grid, steps=61, classifier=model).groups
    assert engine.cells.features(group.problem, jnp.ones((1, 64))).shape == (1, 96)
    np.testing.assert_array_equal(zeros.table["diverged_at"], plain.table["diverged_at"])
    np.testing.assert_allclose(zeros.losses, plain.losses, rtol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), zeros.params, plain.params)
    np.testing.assert_allclose(zeros.table["val_loss"], plain.table["val_loss"], rtol=1e-4)
    np.testing.assert_allclose(zeros.test_accuracy, plain.test_accuracy, atol=1.1 / 270)
    if history:
        np.testing.assert_allclose(zeros.history.val_accuracy, plain.history.val_accuracy, atol=1.1 / 270)


@pytest.mark.parametrize("chunk_steps", [10, *slow(1, 7, 1000)])
def test_result_does_not_depend_on_how_the_run_is_cut_into_chunks(chunk_steps: int, digits: Splits) -> None:
    whole = sweep.run(digits, TWO_CELLS, steps=25)
    cut = sweep.run(digits, TWO_CELLS, steps=25, chunk_steps=chunk_steps)
    np.testing.assert_allclose(cut.losses, whole.losses, rtol=1e-5)


def test_sweep_runs_in_float64(digits: Splits) -> None:
    with jax.enable_x64(True):
        wide = Splits(
            *(Split(split.X.astype(np.float64), split.y) for _, split in digits.items()),
            digits.class_names,
            digits.mean,
            digits.scale,
            digits.pixels,
            digits.name,
        )
        found = sweep.run(wide, Grid([0.1], [1e-3]), steps=20)
        streamed = sweep.run(wide, Grid([0.1], [1e-3]), steps=20, stream=True)
    assert found.losses.dtype == found.params.dtype == np.float64
    np.testing.assert_array_equal(streamed.losses, found.losses)


def test_callback_is_called_before_and_after_every_chunk(digits: Splits) -> None:
    rows: list[dict] = []
    sweep.run(digits, TWO_CELLS, steps=25, chunk_steps=10, callback=rows.append)
    assert [row["step"] for row in rows] == [0, 10, 20, 25]
    assert {row["steps"] for row in rows} == {25}
    assert {row["cells"] for row in rows} == {2}
    assert [row["diverged"] for row in rows] == [0, 1, 1, 1]
    assert np.isfinite(rows[-1]["loss"])


def test_callback_counts_no_cell_twice(digits: Splits) -> None:
    rows: list[dict] = []
    cell = engine.cells.estimate(engine.cells.problem(digits), batch_size=200)
    grid = Grid(np.logspace(-1, 0, 9).tolist(), [0.0])
    sweep.run(
        digits, grid, steps=10, memory=engine.planning.nbytes(digits) + 5 * cell, stream=False, callback=rows.append
    )
    assert [(row["step"], row["cells"]) for row in rows] == [(0, 5), (10, 5), (20, 4)]


def test_all_cells_diverged_is_a_result(digits: Splits) -> None:
    found = sweep.run(digits, Grid([1e30, 1e31], [1.0]), steps=25, chunk_steps=10)
    assert found.best is None
    assert found.params is None
    assert np.isnan(found.test_accuracy)
    assert found.table["diverged_at"].tolist() == [1, 1]
    assert found.table["rank"].tolist() == [0, 0]
    assert np.isnan(found.table["val_accuracy"]).all()


def test_diverged_cell_is_reported_with_the_step_at_which_it_left(digits: Splits) -> None:
    # lr · 2 · reg = 20: the penalty alone multiplies W by -19 at every step.
    found = sweep.run(digits, Grid([10.0], [1.0]), steps=100)
    left = int(found.table["diverged_at"][0])
    assert np.isfinite(found.losses[0, :left]).all()
    assert not np.isfinite(found.losses[0, left])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"reg": []}, "reg must hold at least one value"),
        ({"reg": [-0.1]}, "reg must hold finite values not below 0, got -0.1"),
        ({"lr": [np.nan]}, "lr must hold finite values not below 0, got nan"),
        ({"lr": [np.inf]}, "lr must hold finite values not below 0, got inf"),
        ({"lr": [0.1, 0.2, 0.1]}, "lr must hold each value once, got 0.1 2 times"),
        ({"reg": [0.0, -0.0]}, "reg must hold each value once"),
        ({"seed": [-1]}, "seed must hold finite values not below 0, got -1"),
        ({"seed": [2**32]}, "seed must hold values below 2\\*\\*32, got 4294967296"),
    ],
)
@pytest.mark.usefixtures("no_type_checker")
def test_a_bad_grid_is_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Grid(**{"lr": [0.1], "reg": [0.0]} | arguments)


@pytest.mark.parametrize("axis", ["lr", "seed"])
def test_a_sweep_without_learning_rates_or_seeds_is_refused(axis: str, digits: Splits) -> None:
    with pytest.raises(ValueError, match=rf"^{axis} must hold at least one value, got \(\)$"):
        sweep.run(digits, Grid(**{"lr": [0.1], "reg": [0.0]} | {axis: ()}), steps=1)


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(("axis", "values"), [("lr", ["fast"]), ("lr", [1j]), ("seed", [0.5])])
def test_a_grid_of_other_things_than_numbers_is_refused(axis: str, values: list) -> None:
    with pytest.raises(TypeError, match=f"{axis} must hold"):
        Grid(**{"lr": [0.1], "reg": [0.0]} | {axis: values})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"chunk_steps": -1}, "chunk_steps must be at least 1, got -1"),
        ({"memory": 10_000}, "memory must hold the data and at least one cell, .* got 10000"),
    ],
)
def test_a_sweep_that_cannot_run_is_refused(options: dict, sentence: str, digits: Splits) -> None:
    with pytest.raises(ValueError, match=sentence):
        sweep.run(digits, Grid([0.1], [0.0]), **{"steps": 5} | options)


def test_a_best_cell_on_the_boundary_comes_with_values_to_try_next() -> None:
    grid = Grid(lr=[0.1, 0.3, 1.0], reg=[0.1, 0.01, 0.001])
    assert grid.beyond(grid.cells().index({"lr": 0.3, "reg": 0.01, "seed": 0})) == {}
    assert grid.beyond(grid.cells().index({"lr": 1.0, "reg": 0.01, "seed": 0})) == {"lr": (1.0, 3.33, 11.1)}
    beyond = grid.beyond(grid.cells().index({"lr": 0.1, "reg": 0.001, "seed": 0}))
    assert beyond == {"lr": (0.1, 0.0333, 0.0111), "reg": (0.001, 1e-4, 1e-5)}
    narrow = Grid(lr=[1.0], reg=[2.0, 2.1])
    assert narrow.beyond(1) == {"reg": (2.1, 4.2, 8.4)}
    assert Grid(lr=[1.0, 2.0], reg=[0.0, 1.0]).beyond(0) == {"lr": (1.0, 0.5, 0.25)}
    assert Grid(lr=[0.1, 1e6], reg=[0.0]).beyond(0) == {"lr": (0.1, 0.01, 0.001)}


def test_the_table_as_a_data_frame_and_as_scikit_learn_has_it(result: SweepResult) -> None:
    frame = result.to_pandas()
    assert list(frame.columns) == list(result.table.dtype.names)
    np.testing.assert_array_equal(frame["val_accuracy"], result.table["val_accuracy"])
    found = result.cv_results()
    assert found["params"] == result.grid.cells()
    np.testing.assert_array_equal(found["param_lr"], result.table["lr"])
    np.testing.assert_array_equal(found["mean_test_score"], result.table["val_accuracy"])
    assert found["rank_test_score"][result.best] == 1
    assert (found["rank_test_score"] >= 1).all()


def test_a_callback_gets_a_dict_that_any_logger_takes(digits: Splits) -> None:
    rows: list[dict] = []
    sweep.run(digits, Grid(lr=[0.1, 1e30], reg=[0.0]), steps=250, callback=rows.append)
    assert [row["step"] for row in rows] == [0, 100, 200, 250]
    assert rows[-1]["diverged"] == 1
    for row in rows:
        assert json.loads(json.dumps(row)).keys() == row.keys()
        assert {type(value) for value in row.values()} <= {int, float}


@pytest.mark.parametrize(
    ("context", "sentence"),
    [
        (jax.disable_jit, r"sweep\.run must be called without jax\.disable_jit: it compiles what it runs"),
        (lambda: jax.set_mesh(jax.make_mesh((1,), ("x",))), r"sweep\.run must be called outside of jax\.set_mesh: "),
    ],
    ids=["disable_jit", "set_mesh"],
)
def test_it_is_called_where_it_can_compile(context: Callable[[], Any], sentence: str, digits: Splits) -> None:
    with context(), pytest.raises(ValueError, match=sentence):
        sweep.run(digits, Grid([0.1], [0.0]), steps=1)


def test_it_is_called_outside_of_jit(digits: Splits) -> None:
    with pytest.raises(ValueError, match=r"^sweep\.run must be called outside of jax\.jit, jax\.vmap and jax\.grad: "):
        jax.jit(lambda: sweep.run(digits, Grid([0.1], [0.0]), steps=1).losses)()


def test_examples_are_computed_with_in_the_precision_of_the_call() -> None:
    with jax.enable_x64(True):
        splits = data.standard(data.load_digits())
    found = sweep.run(splits, Grid([0.1], [1e-3]), steps=20)
    assert found.losses.dtype == found.params.dtype == np.float32


@pytest.mark.parametrize(
    ("sampling", "last_batch"),
    [("replacement", "continued"), ("epochs", "continued"), ("epochs", "kept"), ("blocks", "continued")],
)
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_a_sweep_that_streams_writes_the_same_bytes(
    hidden: tuple[int, ...], sampling: sampling.Sampling, last_batch: sampling.LastBatch, digits: Splits
) -> None:
    """Of replicates, with a history, in chunks whose last one is shorter."""
    grid = Grid(lr=[0.05, 1e30], reg=[0.0, 0.1], seed=[0, 7], hidden=hidden)
    model = two_layer_net(init_scale=0.1) if hidden else linear()
    drawn: dict[str, Any] = {"batch_size": 30, "sampling": sampling, "last_batch": last_batch}
    one, other = (
        sweep.run(digits, grid, steps=50, chunk_steps=20, classifier=model, stream=stream, **drawn)
        for stream in (False, True)
    )
    assert_same_bits(one, other)


def test_stacks_that_stream_together_write_the_same_bytes(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets of two sizes in programs of their own, on the same minibatches, if they fit."""
    monkeypatch.setattr("jaxcls.engine.planning.groups", lambda sizes, work: [(size,) for size in sizes])
    points = Points(lr=[0.05, 1e30, 0.1], reg=[0.0, 0.1, 0.2], hidden=[3, 3, 40], seed=[0, 7])
    options: dict[str, Any] = {"steps": 20, "batch_size": 30, "chunk_steps": 10, "keep": "best"}
    plan = functools.partial(sweep.plan, digits, points, classifier=two_layer_net(init_scale=0.1), **options)
    planned = plan(stream=True)
    assert [len(block) for block in planned.blocks] == [2]
    assert [len(block) for block in plan(stream=True, memory=planned.nbytes).blocks] == [2]
    assert [len(block) for block in plan(stream=True, memory=planned.nbytes - 1).blocks] == [1, 1]
    apart, together = (sweep.execute(each, digits, select="log-loss") for each in (plan(stream=False), planned))
    assert_same_bits(apart, together)


def test_stacks_of_other_minibatches_train_apart(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one seed and of two: what is read for one is not what the other trains on."""
    monkeypatch.setattr("jaxcls.engine.planning.groups", lambda sizes, work: [(size,) for size in sizes])
    points = Points(lr=[0.05, 0.1, 0.1], reg=[0.0] * 3, hidden=[3, 40, 40], seed=[0, 7])
    options: dict[str, Any] = {"steps": 10, "chunk_steps": 1, "stream": True, "classifier": two_layer_net()}
    narrow, wide = (group.memory for group in sweep.plan(digits, points, **options).groups)
    planned = sweep.plan(digits, points, memory=wide.data + 2 * wide.cell + 2 * narrow.cell, **options)
    rows = [[stack.rows.tolist() for stack in block] for block in planned.blocks]
    assert rows == [[[[0], [1]]], [[[2, 4]]], [[[3, 5]]]]


@pytest.mark.parametrize("epoch", [None, 1, 3, 7, 20])
def test_chunks_cover_all_steps_and_end_with_the_recorded_ones(epoch: int | None) -> None:
    for steps, chunk_steps in itertools.product((1, 2, 7, 20), (1, 3, 100)):
        schedule = engine.Schedule(steps, chunk_steps, epoch)
        assert [step for chunk in schedule.chunks for step in chunk] == list(range(steps))
        assert max(map(len, schedule.chunks)) <= chunk_steps
        assert schedule.recorded.tolist() == (list(range(0, steps, epoch)) if epoch else [])
        assert {chunk[-1] for chunk in schedule.chunks} >= set(schedule.recorded.tolist())
        for chunk in schedule.chunks:
            assert schedule.after(chunk.start)[0] == chunk
        assert schedule.after(steps) == []


def test_without_a_test_set_there_is_no_test_accuracy(digits: Splits, result: SweepResult) -> None:
    found = sweep.run(dataclasses.replace(digits, test=None), GRID, steps=150, batch_size=50)
    np.testing.assert_array_equal(found.table, result.table)
    assert np.isnan(found.test_accuracy)


def test_a_short_training_scores_a_part_of_train(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.planning, "LEAST_SCORED", 200)
    planned = sweep.plan(digits, TWO_CELLS, steps=10, batch_size=200)
    rows = planned.scored(0)
    assert planned.num_scored == len(rows) == 10 * 200 // 9
    found = sweep.execute(planned, digits)
    assert found.num_scored == 222
    part = dataclasses.replace(digits.train, y=digits.train.y[rows], rows=digits.train.rows[rows])
    whole = sweep.run(dataclasses.replace(digits, val=part), TWO_CELLS, steps=10, batch_size=200)
    assert found.table["train_accuracy"][0] == pytest.approx(whole.table["val_accuracy"][0])
    assert sweep.plan(digits, TWO_CELLS, steps=100, batch_size=200).num_scored == len(digits.train)


@contextlib.contextmanager
def compiled_functions() -> Iterator[list[str]]:
    """The names of the functions that XLA compiles meanwhile."""
    compiled: list[str] = []

    def listen(event: str, _: float, **about: str | int) -> None:
        if "backend_compile" in event:
            compiled.append(str(about["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_folds_of_a_similar_number_of_examples_compile_nothing_but_their_evaluation() -> None:
    source, grid = data.load_digits(), Grid(lr=[0.1], reg=[0.0], fold=[0, 1])
    for rows in (301, 310):
        folds = data.standard_folds(source, np.array_split(np.arange(rows), 2))
        with compiled_functions() as compiled:
            sweep.run(folds, grid, steps=3, batch_size=10)
    assert set(compiled) == {"jit(score)"}


def test_a_second_sweep_of_the_same_shapes_compiles_nothing(digits: Splits) -> None:
    """Whatever the values: they are arguments of the compiled functions."""
    first, second = Grid(lr=[0.03, 0.3], reg=[0.0, 1e-2]), Grid(lr=[0.1, 0.2], reg=[0.1, 0.2], seed=[3])
    sweep.run(digits, first, steps=20, batch_size=50, classifier=linear())
    with compiled_functions() as compiled:
        found = sweep.run(digits, second, steps=20, batch_size=50, classifier=linear())
    assert compiled == []
    _, losses = alone(digits, lr=0.1, reg=0.1, seed=3, optimizer=optax.sgd, steps=20)
    np.testing.assert_allclose(found.losses[0], losses, rtol=1e-4)
