"""Searches that spend their steps where they matter: points, successive halving, early stopping."""

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from jaxcls import crossval, data, engine, optimizers, refine, sampling, softmax, sweep, train
from jaxcls.artifacts import checkpoint
from jaxcls.classifier import linear, two_layer_net
from jaxcls.data import Splits, standard_folds
from jaxcls.engine.halving import rungs, survivors, widths
from jaxcls.grid import Grid, Points
from jaxcls.result import SweepResult
from jaxcls.sweep import Halving
from jaxcls.table import SCORES, empty_table, ranks
from jaxcls.train import Hyper
from parity_tests.support.cases import slow
from parity_tests.support.results import assert_same_bits

POINTS = Points(
    lr=[1e-3, 0.3, 0.1, 1e30, 1.0, 0.03, 0.5, 0.01, 0.2], reg=[1e-3, 1e-4, 0.1, 0.0, 1e-2, 1e-3, 0.3, 0.0, 1e-5]
)
HALVING = Halving(rungs=(10, 20))
STEPS = {"steps": 40, "chunk_steps": 10}  # chunks of one length, compiled once for each width


@pytest.fixture(scope="module", autouse=True)
def narrower_at_every_rung() -> Iterator[None]:
    """Programs for stacks of other widths, though the sweeps here are too short to pay for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.halving, "NARROWING", 0.0)
        yield


def run(splits: Splits, cells: Grid | Points = POINTS, **options: Any) -> SweepResult:
    return sweep.run(splits, cells, **STEPS | options)


@pytest.fixture(scope="module")
def whole(digits: Splits) -> SweepResult:
    return run(digits)


@pytest.fixture(scope="module")
def halved(digits: Splits) -> SweepResult:
    return run(digits, halving=HALVING)


def test_points_of_a_product_are_its_grid_bit_for_bit(digits: Splits) -> None:
    grid = Grid(lr=[0.1, 1.0, 0.3], reg=[0.0, 1e-3, 0.1], seed=[0, 7])
    lr, reg = zip(*itertools.product(grid.lr, grid.reg), strict=True)
    product, points = (run(digits, cells, batch_size=50) for cells in (grid, Points(lr, reg, seed=[0, 7])))
    assert grid.cells() == points.grid.cells()
    np.testing.assert_array_equal(product.table, points.table)
    np.testing.assert_array_equal(product.losses, points.losses)
    np.testing.assert_array_equal(product.params, points.params)


def test_points_of_nets_are_those_cells_of_their_grid(digits: Splits) -> None:
    net: dict[str, Any] = {"classifier": two_layer_net(init_scale=0.1), "optimizer": optax.sgd}
    grid = run(digits, Grid([0.1, 1.0], [0.0, 1e-3], hidden=[5, 9]), **net)
    points = run(digits, Points([1.0, 0.1, 0.1], [0.0, 1e-3, 0.0], hidden=[9, 5, 9]), **net)
    rows = [grid.grid.cells().index(cell) for cell in points.grid.cells()]
    np.testing.assert_allclose(points.losses, grid.losses[rows], rtol=1e-5)


def test_points_search_folds(digits: Splits) -> None:
    folds = standard_folds(data.load_digits(), np.split(np.arange(900), [200, 500]))
    points = Points([0.1, 1.0, 0.3], [0.0, 1e-3, 0.1], fold=[0, 1, 2])
    found = run(folds, points, batch_size=50)
    grid = run(folds, Grid([0.1, 1.0, 0.3], [0.0, 1e-3, 0.1], fold=[0, 1, 2]), batch_size=50)
    rows = [grid.grid.cells().index(cell) for cell in points.cells()]
    np.testing.assert_allclose(found.losses, grid.losses[rows], rtol=1e-5)


def test_random_points_fill_their_ranges() -> None:
    points = Points.random(
        256, lr=(1e-4, 1.0), reg=(0.01, 0.05), momentum=(0.0, 0.9), hidden=(64, 1024), b2=[0.9, 0.99]
    )
    columns = points.columns()
    for axis, low, high in (("lr", 1e-4, 1.0), ("hidden", 64, 1024)):  # log-uniform: as many in each half
        values = np.log(columns[axis] / low) / np.log(high / low)
        np.testing.assert_allclose(np.histogram(values, 4, (0, 1))[0], 64, atol=4)
    for axis, low, high in (("reg", 0.01, 0.05), ("momentum", 0.0, 0.9)):
        np.testing.assert_allclose(np.histogram(columns[axis], 4, (low, high))[0], 64, atol=1)
    assert (np.unique(columns["b2"], return_counts=True)[1] == 128).all()
    assert points == Points.random(
        256, lr=(1e-4, 1.0), reg=(0.01, 0.05), momentum=(0.0, 0.9), hidden=(64, 1024), b2=[0.9, 0.99]
    )
    other = Points.random(256, seed=1, lr=(1e-4, 1.0), reg=(0.01, 0.05))
    assert not np.isin(other.lr, points.lr).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Points([0.1, 0.2], [0.0]), "the columns of points must be equally long, got lr 2, reg 1"),
        (lambda: Points.random(0, lr=(0.1, 1.0)), "number must be at least 1, got 0"),
        (
            lambda: Points.random(4, lr=(1.0, 0.1)),
            "lr must be a range from a lower to a higher number, got (1.0, 0.1)",
        ),
        (
            lambda: Points.random(4, reg=(0.0, 0.1)),
            "reg must be a range of positive numbers, to be drawn by their logarithms, got (0.0, 0.1)",
        ),
        (lambda: Points.random(4, reg=(0.1, float("inf"))), "reg must be a range from a lower to a higher number"),
        (lambda: Points.random(4, seed_=(0.1, 1.0)), "axes must be some of lr, reg, weight_decay"),
        (lambda: Points.random(4, reg=[-1.0, 0.1]), "reg must hold finite values not below 0, got -1.0"),
        (lambda: Points.random(4, lr=(0.1, 1.0)), "reg must hold at least one value, got ()"),
        (lambda: Points.random(4, reg=(0.1, 0.2), momentum=(0.5, 1.5)), "momentum must hold values below 1"),
    ],
)
def test_a_mistake_with_points_is_one_line(make: Callable[[], Points], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}[^\n]*$"):
        make()


def test_the_best_stay_at_each_rung_and_end_as_they_would_without(
    whole: SweepResult, halved: SweepResult, digits: Splits
) -> None:
    rung = run(digits, steps=10).table
    order = np.argsort(ranks(rung["val_accuracy"], rung["val_loss"]) % 100 + 100 * (rung["diverged_at"] >= 0))
    stopped = halved.table["stopped_at"]
    assert set(np.flatnonzero(stopped == 10)) == set(order[3:]) - {3}
    assert (stopped == 20).sum() == 2
    assert (stopped < 0).sum() == 2  # the best, and a diverged cell
    for name in ("val_loss", "val_accuracy"):
        np.testing.assert_allclose(halved.table[name][stopped == 10], rung[name][stopped == 10], rtol=1e-5)
    best = halved.best
    assert best is not None
    assert halved.grid.only(best) == whole.grid.only(best)
    np.testing.assert_allclose(halved.losses[best], whole.losses[best], rtol=1e-5)
    for name in SCORES:
        assert halved.table[name][best] == pytest.approx(whole.table[name][best], rel=1e-5)
    if whole.best == best:
        np.testing.assert_allclose(halved.params, whole.params, atol=1e-5 * np.abs(whole.params).max())


def test_the_table_says_what_was_dropped_when_and_at_which_score(halved: SweepResult) -> None:
    table, stopped = halved.table, halved.table["stopped_at"]
    gone = table["diverged_at"] >= 0
    assert gone.tolist() == (np.array(POINTS.lr) == 1e30).tolist()
    assert np.isnan(table["train_loss"][stopped >= 0]).all()
    assert np.isfinite(table["val_loss"][~gone]).all()
    assert np.isnan(table["val_loss"][gone]).all()
    steps = np.where(stopped >= 0, stopped, 40)
    for row in np.flatnonzero(~gone):
        assert np.isfinite(halved.losses[row, : steps[row]]).all()
        assert np.isnan(halved.losses[row, steps[row] :]).all()
    # Those that were trained longer rank higher.
    by_rank = steps[np.argsort(table["rank"])][gone.sum() :]
    assert (np.diff(by_rank) <= 0).all()
    assert halved.stages == [(9, 0, 10), (3, 10, 20), (1, 20, 40)]


def test_replicates_are_judged_by_their_mean(digits: Splits) -> None:
    points = replace(POINTS, seed=[0, 1])
    found = run(digits, points, halving=Halving(rungs=(10,)))
    rung = run(digits, points, steps=10).table
    mean, loss = (rung[name].reshape(9, 2).mean(axis=1) for name in ("val_accuracy", "val_loss"))
    stay = np.repeat((ranks(mean, loss) > 0) & (ranks(mean, loss) <= 3), 2)
    assert ((found.table["stopped_at"] < 0) & (found.table["diverged_at"] < 0)).tolist() == stay.tolist()


def test_a_metric_of_its_own_judges_at_the_rungs(digits: Splits) -> None:
    rung = run(digits, steps=10).table
    found = run(digits, halving=Halving(rungs=(10,), metric="log-loss"))
    lowest = np.argsort(np.nan_to_num(rung["val_loss"], nan=np.inf))[:3]
    assert set(np.flatnonzero((found.table["stopped_at"] < 0) & (found.table["diverged_at"] < 0))) == set(lowest)


@pytest.mark.parametrize("seeds", [[0], *slow([0, 1])])
def test_blocks_are_judged_together(halved: SweepResult, digits: Splits, seeds: list[int]) -> None:
    cell = engine.cells.estimate(engine.cells.problem(digits), batch_size=200)
    memory = engine.planning.nbytes(digits) + 4 * cell
    points = replace(POINTS, seed=seeds)
    together = halved if len(seeds) == 1 else run(digits, points, halving=HALVING)
    found = run(digits, points, halving=HALVING, memory=memory, stream=False)
    assert len(sweep.plan(digits, points, memory=memory, stream=False, **STEPS).blocks) > 2
    np.testing.assert_array_equal(found.table["stopped_at"], together.table["stopped_at"])
    np.testing.assert_allclose(found.losses, together.losses, rtol=1e-5)
    np.testing.assert_allclose(found.params, together.params, atol=1e-5 * np.abs(together.params).max())


def test_nets_of_several_groups_are_judged_together(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    points = Points([0.1, 1.0, 0.3, 1.0, 0.5, 0.7], [1e-3] * 6, hidden=[5, 9, 5, 9, 5, 9])
    net: dict[str, Any] = {"classifier": two_layer_net(init_scale=0.1), "halving": Halving(rungs=(10,))}
    one_group = run(digits, points, **net)
    monkeypatch.setattr(engine.blocks, "COMPILATION", 0.0)
    found = run(digits, points, **net)
    assert len(sweep.plan(digits, points, classifier=two_layer_net(init_scale=0.1), **STEPS).groups) == 2
    np.testing.assert_array_equal(found.table["stopped_at"], one_group.table["stopped_at"])
    np.testing.assert_allclose(found.losses, one_group.losses, rtol=1e-4)


def test_folds_are_halved_by_their_mean() -> None:
    folds = standard_folds(data.load_digits(), np.split(np.arange(900), [200, 500]))
    points = replace(POINTS, fold=[0, 1, 2])
    found = run(folds, points, batch_size=50, halving=Halving(rungs=(10,)))
    rung = run(folds, points, batch_size=50, steps=10).table
    mean, loss = (rung[name].reshape(9, 3).mean(axis=1) for name in ("val_accuracy", "val_loss"))
    stay = np.repeat((ranks(mean, loss) > 0) & (ranks(mean, loss) <= 3), 3)
    assert ((found.table["stopped_at"] < 0) & (found.table["diverged_at"] < 0)).tolist() == stay.tolist()


def test_the_best_of_a_halved_search_is_trained_again_alone(digits: Splits) -> None:
    search = functools.partial(sweep.run, halving=HALVING, **STEPS)
    found = crossval.refit(search, search(digits, POINTS), digits)
    alone = sweep.run(digits, POINTS.only(found.best), **STEPS)
    np.testing.assert_array_equal(found.params, alone.params)
    folds = standard_folds(data.load_digits(), np.split(np.arange(900), [200, 500]))
    assert crossval.run(search, POINTS, folds, digits).result.params is not None


def test_a_search_whose_cells_all_diverge_ends(digits: Splits) -> None:
    found = run(digits, Points([1e30] * 9, [0.1] * 9), halving=HALVING)
    assert found.best is None
    assert (found.table["diverged_at"] >= 0).all()
    assert (found.table["stopped_at"] < 0).all()


PATIENT = {"keep": "best", "patience": 2}


def test_patience_ends_each_cell_at_its_own_time_with_its_best_weights(digits: Splits) -> None:
    points = Points([1e-3, 3.0, 0.1, 10.0, 1e30, 1e-30], [0.0, 0.1, 0.3, 0.01, 0.1, 0.0])
    found = run(digits, points, **PATIENT)
    patient = run(digits, points, keep="best")
    stopped = found.table["stopped_at"]
    assert (stopped >= 0).any()
    assert (found.table["diverged_at"] >= 0).tolist() == [False, False, False, False, True, False]
    assert stopped[4] < 0
    assert stopped[5] == 9  # scored after 1, 5 and 9 steps, the first time better than nothing
    assert not (stopped[0] >= 0)  # it learns slowly and steadily
    for row in range(4):
        steps = stopped[row] if stopped[row] >= 0 else 40
        assert np.isnan(found.losses[row, steps:]).all()
        np.testing.assert_allclose(found.losses[row, :steps], patient.losses[row, :steps], rtol=1e-5)
        alone = run(digits, points.only(row), **PATIENT)
        assert alone.table["stopped_at"][0] == stopped[row]
        assert alone.table["val_accuracy"][0] == pytest.approx(found.table["val_accuracy"][row], abs=1.1 / 270)
    recorded = run(digits, points, history=True, keep="best").history
    assert recorded is not None


@pytest.mark.parametrize("case", ["halving in blocks", *slow("halving", "nets, halving and patience", "patience")])
def test_a_halved_search_resumed_from_any_chunk_is_the_same_to_the_bit(
    case: str, digits: Splits, tmp_path: Path
) -> None:
    options: dict[str, Any] = {} if case == "patience" else {"halving": HALVING}
    points = replace(POINTS, seed=[0, 3])
    if "patience" in case:
        options |= PATIENT
    if "nets" in case:
        points = replace(POINTS, hidden=[3, 40, 3, 8, 5, 7, 9, 3, 4])
        options |= {"classifier": two_layer_net(init_scale=0.1), "optimizer": "momentum"}
    if "blocks" in case:
        cell = engine.cells.estimate(engine.cells.problem(digits), batch_size=200)
        options |= {"memory": engine.planning.nbytes(digits) + 5 * cell, "stream": False}
    saved: list[Path] = []

    def save(take: Callable[[], sweep.Snapshot]) -> None:
        saved.append(tmp_path / f"{len(saved)}.safetensors")
        checkpoint.write(saved[-1], take(), {})

    whole = run(digits, points, save=save, **options)
    assert len(saved) > 4
    for path in saved:
        snapshot, _ = checkpoint.read(path)
        again = run(digits, points, resume=snapshot, **options)
        assert_same_bits(again, whole)


def test_a_snapshot_of_another_halving_is_rejected(digits: Splits) -> None:
    taken: list[sweep.Snapshot] = []
    run(digits, halving=HALVING, save=lambda take: taken.append(take()))
    with pytest.raises(ValueError, match=r"^resume must be a snapshot of this very sweep"):
        run(digits, halving=Halving(rungs=(10, 30)), resume=taken[0])


def test_replicates_count_by_their_mean_and_not_by_the_best_of_them() -> None:
    table = empty_table(Grid(lr=[0.1, 0.2, 0.3], reg=[0.0], seed=[0, 1]))
    table["val_accuracy"], table["val_loss"] = [0.5, 0.9, 0.8, 0.8, 0.9, 0.1], 1.0
    stay = survivors(table, np.ones(6, bool), 2, Halving(), "accuracy")
    np.testing.assert_array_equal(stay, [False, False, True, True, False, False])


def test_rungs_are_at_a_tenth_a_quarter_and_a_half_in_whole_chunks() -> None:
    assert rungs(Halving(), 100, 1500, unit=100) == (100, 300, 700)
    assert rungs(Halving(keep=0.5), 100, 1000) == (100, 250, 500)
    assert rungs(Halving(), 10, 800) == (100, 300)
    assert rungs(Halving(), 4, 300) == rungs(Halving(), 2, 300) == (75,)
    assert rungs(Halving(rungs=(7, 9)), 100, 300) == (7, 9)
    assert rungs(Halving(), 100, 2) == (1,)


def test_a_stack_gets_narrower_where_that_pays_for_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.halving, "NARROWING", 7.5e10)
    few, many = Halving(rungs=(10, 20)), Halving(rungs=(1000, 2000))
    assert widths(9, few, 1e6) == [9]
    assert widths(9, many, 1e7) == [9, 1]  # 3 would save too little
    assert widths(9, many, 1e8) == [9, 3, 1]


def test_rungs_are_at_the_ends_of_chunks_that_there_are_anyway(digits: Splits) -> None:
    planned = sweep.plan(digits, POINTS, steps=2000, halving=Halving())
    assert planned.schedule.rungs == (200, 700)
    assert {len(chunk) for chunk in planned.schedule.chunks} == {100}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"halving": Halving(keep=1.0)}, "halving.keep must lie between 0 and 1, got 1.0"),
        ({"halving": Halving(rungs=(20, 10))}, "halving.rungs must ascend between 0 and 40 steps, got [20, 10]"),
        ({"halving": Halving(rungs=(40,))}, "halving.rungs must ascend between 0 and 40 steps, got [40]"),
        (
            {"halving": Halving(metric="recall")},
            "halving.metric must be one of accuracy, mean-per-class, top-5, macro-f1, log-loss, got recall",
        ),
        (
            {"halving": Halving(), "cells": Points([0.1], [0.0], seed=[0, 1])},
            "halving must have at least two cells, replicates not counted, got 1",
        ),
        ({"patience": 0, "keep": "best"}, "patience must be at least 1, got 0"),
        ({"ema": 1.0}, "ema must lie between 0 and 1, got 1.0"),
        ({"patience": 2}, "keep must be best for a patience, whose cells keep their best weights, got last"),
    ],
)
def test_a_mistake_with_halving_is_one_line(options: dict[str, Any], message: str, digits: Splits) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        run(digits, **options)


def test_five_classes_cannot_be_halved_by_the_five_highest_logits() -> None:
    message = "halving.metric must be another than top-5 for five classes or fewer, got 5"
    with pytest.raises(ValueError, match=rf"^{message}$"):
        engine.halving.check(Halving(metric="top-5"), 9, num_classes=5, steps=100)


def decay(steps: float) -> float:
    return min(0.9, (1 + steps) / (10 + steps))


def test_averaged_weights_are_those_of_torch_and_are_scored(digits: Splits) -> None:
    points = Points([0.5, 0.1], [1e-3, 0.0])
    found, plain = run(digits, points, ema=0.9), run(digits, points)
    np.testing.assert_array_equal(found.losses, plain.losses)
    step = jax.jit(functools.partial(train.step, linear(), optax.sgd))
    hyper = Hyper(jnp.float32(0.5), jnp.float32(1e-3))
    state = train.init(optax.sgd, softmax.init(65, 10, key=jax.random.key(0)), hyper)
    X, y = softmax.append_ones(digits.train.X), jnp.asarray(digits.train.y)
    W = torch.nn.ParameterList([torch.tensor(np.array(state.params))])
    average = AveragedModel(W, avg_fn=lambda mean, new, steps: mean + (1 - decay(float(steps))) * (new - mean))
    average.update_parameters(W)
    for batch in sampling.minibatches(0, range(40), batch_size=200, num_examples=len(y)):
        state, _ = step(state, hyper, X[batch], y[batch])
        W[0].data = torch.tensor(np.array(state.params))
        average.update_parameters(W)
    mean = average.module[0].detach().numpy()
    assert found.best == 0
    np.testing.assert_allclose(found.params, mean, atol=1e-6)
    assert np.abs(np.asarray(plain.params) - mean).max() > 1e-3
    correct = softmax.predict(jnp.asarray(mean), softmax.append_ones(digits.val.X)) == digits.val.y
    assert found.table["val_accuracy"][0] == pytest.approx(float(correct.mean()), abs=1.1 / 270)


@pytest.mark.parametrize("case", ["halved, in blocks", *slow("all", "nets, averaged, best kept")])
def test_an_extended_sweep_is_the_long_one_to_the_bit(case: str, digits: Splits) -> None:
    points, options, halving = replace(POINTS, seed=[0, 3]), dict[str, Any](), HALVING if "halved" in case else None
    if "nets" in case:
        points = replace(POINTS, hidden=[3, 40, 3, 8, 5, 7, 9, 3, 4])
        options = {"classifier": two_layer_net(init_scale=0.1), "optimizer": "momentum", "ema": 0.9}
    if "blocks" in case:
        cell = engine.cells.estimate(engine.cells.problem(digits), batch_size=200)
        options |= {"memory": engine.planning.nbytes(digits) + 5 * cell, "stream": False}
    first = run(digits, points, halving=halving, keep_state=True, **options)
    longer_options = STEPS | {"steps": 80, "halving": halving} | options
    planned = sweep.plan(digits, points, keep_state=True, trained=40, **longer_options)
    longer = sweep.execute(planned, digits, resume=sweep.continued(first.snapshot, planned))
    whole = run(digits, points, halving=halving, steps=80, **options)
    assert_same_bits(longer, whole)
    assert longer.timings.total_s > first.timings.total_s


def test_a_refined_search_has_the_cells_of_both(digits: Splits) -> None:
    grid = Grid([0.03, 0.3, 1.0], [0.0, 1e-2])
    first = run(digits, grid, keep_state=True)
    assert first.best is not None
    both = refine.joined(grid, refine.around(grid, first.best))
    assert both.cells()[: len(grid)] == grid.cells()
    assert len(both) == 6 + 5  # nine around the best, of which four were trained
    planned = sweep.plan(digits, both, keep_state=True, **STEPS)
    found = sweep.execute(planned, digits, resume=sweep.continued(first.snapshot, planned))
    new = run(digits, both)
    for column in SCORES:
        np.testing.assert_array_equal(found.table[column][:6], first.table[column])
        # Large learning rates amplify the rounding of a stack of another width.
        np.testing.assert_allclose(found.table[column], new.table[column], rtol=1e-3)
    assert found.table["rank"].tolist() == new.table["rank"].tolist()
    np.testing.assert_allclose(found.params, new.params, atol=1e-5 * np.abs(new.params).max())
    # Where the best of the first search is not beaten, it keeps its weights.
    worse = refine.joined(grid, Grid([1e-4], [0.0]))
    planned = sweep.plan(digits, worse, keep_state=True, **STEPS)
    found = sweep.execute(planned, digits, resume=sweep.continued(first.snapshot, planned))
    assert found.best == first.best
    np.testing.assert_array_equal(found.params, first.params)


def test_cells_around_the_best_lie_between_its_neighbours_or_beyond_the_boundary() -> None:
    grid = Grid([0.1, 1.0], [1e-3], hidden=[10, 20, 40], momentum=[0.5, 0.9], seed=[0, 1])
    found = refine.around(grid, len(grid) - 1)
    assert found.axes == {
        "lr": (1.0, 10.0, 100.0),
        "reg": (1e-3,),
        "momentum": (0.7, 0.9),
        "hidden": (40, 80, 160),
        "seed": (0, 1),
    }
    points = Points.random(60, lr=(1e-3, 1.0), reg=[0.0, 1e-3], momentum=(0.5, 0.99), hidden=(8, 512))
    near = refine.around(points, 7)
    best = points.cells()[7]
    assert near.num_settings == 20
    assert 0.9 < max(near.lr) / best["lr"] / 10 ** (1 / 2) < 1.1
    assert set(near.reg) <= {0.0, 1e-3}
    assert max(near.momentum) < 1
    assert max(near.hidden) <= best["hidden"] * (512 / 8) ** (1 / 6) + 2
    with pytest.raises(ValueError, match=r"^both must have the same axes, seeds and folds, got "):
        refine.joined(grid, points)
    with pytest.raises(ValueError, match=r"^a cell to add must be new, got only those of the first search$"):
        refine.joined(grid, grid)


def test_a_mistake_in_continuing_is_one_line(digits: Splits) -> None:
    points = Points([0.1, 1.0], [0.0, 0.1])
    first = run(digits, points, keep_state=True)
    for cells, more, message in (
        (points, {}, "a finished sweep must be continued with more steps or with more cells, and not with both"),
        (Points([0.1, 2.0, 1.0], [0.0, 0.1, 0.1]), {}, "the first cells must be those of the finished sweep"),
        (points, {"steps": 60, "trained": 40, "batch_size": 100}, "resume must be a snapshot of this very sweep"),
    ):
        planned = sweep.plan(digits, cells, keep_state=True, **STEPS | more)
        with pytest.raises(ValueError, match=f"^{message}"):
            sweep.execute(planned, digits, resume=sweep.continued(first.snapshot, planned))
    with pytest.raises(ValueError, match=r"^resume must be a snapshot of this very sweep"):  # it has ended
        run(digits, points, keep_state=True, resume=first.snapshot)
    planned = sweep.plan(digits, points, trained=40, **STEPS | {"steps": 60})
    with pytest.raises(ValueError, match=r"^the finished sweep must have kept the state of its cells"):
        sweep.continued(first.snapshot._replace(parked=[]), planned)
    with pytest.raises(ValueError, match=r"^steps must be more than the 40 that cells were trained for, got 40$"):
        sweep.plan(digits, points, trained=40, **STEPS)
    with pytest.raises(
        ValueError, match=r"^cells that are trained further must have neither a patience nor more rungs$"
    ):
        sweep.plan(digits, points, trained=20, halving=HALVING, **STEPS)


def test_where_all_that_stayed_diverge_there_is_no_best(digits: Splits) -> None:
    factor = jnp.where(jnp.arange(40) < 15, 1.0, 1e30)
    explodes = optimizers.scheduled(optax.sgd, lambda count: factor[count])
    found = run(digits, POINTS, optimizer=explodes, halving=Halving(rungs=(10,)))
    assert (found.table["diverged_at"] >= 15).sum() == 3
    assert found.best is None
    assert found.params is None


def test_diverged_cells_leave_a_long_sweep_and_change_no_other(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid([0.1, 1e30, 0.3, 1e29], [1e-3, 1e-2])
    plain = run(digits, grid)
    monkeypatch.setattr(engine.planning, "LONG", 0.0)
    planned = sweep.plan(digits, grid, **STEPS)
    assert planned.schedule.rungs == (10,)
    widths = [stack.rows.size for (stack,) in planned.blocks_of(np.isin(grid.columns()["lr"], (0.1, 0.3)))]
    assert widths == [4]  # of eight
    found = run(digits, grid)
    np.testing.assert_array_equal(found.table["diverged_at"], plain.table["diverged_at"])
    assert (found.table["stopped_at"] < 0).all()
    stay = found.table["diverged_at"] < 0
    np.testing.assert_allclose(found.losses[stay], plain.losses[stay], rtol=1e-5)
    assert found.table["rank"].tolist() == plain.table["rank"].tolist()


def test_states_that_the_host_cannot_hold_are_one_line(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.planning, "host", lambda: 20_000)
    message = "the states of all cells must fit in the host's memory of 20000 bytes, got 23400 bytes"
    with pytest.raises(ValueError, match=f"^{message}$"):
        sweep.plan(digits, POINTS, halving=HALVING, **STEPS)
    sweep.plan(digits, POINTS, **STEPS)
