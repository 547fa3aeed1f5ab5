"""Hidden size as an axis of the grid: the same as one net at a time, and as torchref's loop."""

import functools
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import torchref
from jaxcls import optimizers, sampling, sweep, train, two_layer
from jaxcls.classifier import Classifier, linear, two_layer_net
from jaxcls.data import Splits
from jaxcls.engine import blocks, cells, planning
from jaxcls.grid import Grid
from jaxcls.optimizers import Optimizer
from jaxcls.table import SCORES
from jaxcls.train import Hyper
from parity_tests.support.cases import named, slow

NET = two_layer_net(init_scale=0.1)
GRID = Grid(lr=[0.1, 0.5], reg=[0.0, 1e-2], hidden=[4, 3], seed=[0, 7])
CALM = Grid(lr=[0.1, 0.2, 0.5], reg=[0.0, 1e-2], hidden=[3, 20])
STEPS, BATCH = 100, 50
OPTIMIZERS = {
    "sgd": optax.sgd,
    "decayed": optimizers.decayed(optax.sgd, 0.9, optimizers.steps_per_epoch(1257, BATCH)),
    "momentum": lambda lr: optax.sgd(0.1 * lr, momentum=0.9),
    "adam": lambda lr: optax.adam(0.03 * lr),
    "adamw": lambda lr: optax.adamw(0.03 * lr, weight_decay=0.1),
    "rmsprop": lambda lr: optax.rmsprop(0.01 * lr),
}
each_optimizer = pytest.mark.parametrize(  # all is compiled for each; Adam has the largest state
    "optimizer",
    named(OPTIMIZERS, "adam"),
)
run = functools.partial(sweep.run, batch_size=BATCH, classifier=NET)


@functools.cache
def alone(optimizer: Optimizer) -> Callable[..., tuple]:
    """The loop of one cell, without the sweep."""
    return jax.jit(functools.partial(train.run, functools.partial(train.step, NET, optimizer)))


def trained_alone(
    splits: Splits, optimizer: Optimizer, *, lr: float, reg: float, hidden: int, seed: int
) -> tuple[two_layer.Params, jax.Array]:
    """One cell, no wider than it is: its params and losses."""
    hyper = Hyper(jnp.float32(lr), jnp.float32(reg))
    state = train.init(optimizer, two_layer.init(64, hidden, 10, key=jax.random.key(seed), scale=0.1), hyper)
    X, y = jnp.asarray(splits.train.X), jnp.asarray(splits.train.y)
    batches = sampling.minibatches(seed, range(STEPS), batch_size=BATCH, num_examples=len(y))
    state, losses = alone(optimizer)(state, hyper, X, y, batches)
    return state.params, losses


@each_optimizer
def test_every_net_is_what_it_would_be_alone(optimizer: Optimizer, digits: Splits) -> None:
    found = run(digits, GRID, steps=STEPS, optimizer=optimizer)
    assert (found.table["diverged_at"] == -1).all()
    for row, cell in enumerate(GRID.cells()):
        params, losses = trained_alone(digits, optimizer, **cell)
        np.testing.assert_allclose(found.losses[row], losses, rtol=1e-3, err_msg=str(cell))
        correct = two_layer.predict(params, digits.val.X) == digits.val.y
        assert found.table["val_accuracy"][row] == pytest.approx(float(correct.mean()), abs=2.1 / 270)
        if row == found.best:
            jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-3), found.params, params)


SEES_ZEROS: dict[str, Optimizer] = {
    "adafactor": optax.adafactor,
    "noisy": lambda lr: optax.noisy_sgd(lr, eta=0.01, gamma=0.55, key=0),
    "centralized": lambda lr: optax.chain(optax.centralize(), optax.sgd(lr)),
    "clipped by its mean": lambda lr: optax.chain(optax.clip_by_block_rms(1.0), optax.sgd(lr)),
}
PRESERVES_ZERO_PADDING: dict[str, Optimizer] = OPTIMIZERS | {
    "clipped by its norm": lambda lr: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(lr)),
    "lamb": optax.lamb,
}


def test_which_optimizers_preserve_zero_padding() -> None:
    def passing(model: Classifier, optimizers: dict[str, Optimizer]) -> list[str]:
        return [name for name, optimizer in optimizers.items() if cells.preserves_zero_padding(model, optimizer, 10)]

    assert passing(NET, SEES_ZEROS) == []
    assert passing(linear(), SEES_ZEROS) == ["centralized"]  # over the classes, and none of those are zeros
    for model in (NET, linear()):
        assert passing(model, PRESERVES_ZERO_PADDING) == [*PRESERVES_ZERO_PADDING]


WEIGHTS_ALONE = two_layer.Params(W1=True, b1=False, W2=True, b2=False)
NAMES_PARAMS: dict[str, Optimizer] = {
    "a mask": lambda lr: optax.adamw(lr, weight_decay=0.1, mask=lambda params: WEIGHTS_ALONE),
    "multi_transform": lambda lr: optax.multi_transform(
        {True: optax.sgd(lr), False: optax.adam(lr)}, lambda params: WEIGHTS_ALONE
    ),
    "partition": lambda lr: optax.partition({True: optax.sgd(lr), False: optax.set_to_zero()}, WEIGHTS_ALONE),
}


@pytest.mark.parametrize("columns", [1, *slow(32)])  # those of a CPU and of a GPU
@pytest.mark.parametrize(
    "optimizer",
    named(NAMES_PARAMS, "a mask", "multi_transform"),
)
def test_an_optimizer_may_name_params(
    optimizer: Optimizer, columns: int, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "alignment", lambda devices: columns)
    found = run(digits, Grid([0.1], [0.0], hidden=[3, 7]), steps=10, optimizer=optimizer)
    monkeypatch.setattr(planning, "alignment", lambda devices: 1)
    alone = run(digits, Grid([0.1], [0.0], hidden=[7]), steps=10, optimizer=optimizer)
    np.testing.assert_allclose(found.losses[1], alone.losses[0], rtol=1e-4)


def test_a_schedule_that_looks_at_its_peak_is_refused_with_what_to_write(digits: Splits) -> None:
    grid = Grid([0.1, 0.3], [0.0], hidden=[5])
    schedule = functools.partial(optax.warmup_cosine_decay_schedule, 0.0, warmup_steps=3, decay_steps=10)
    with pytest.raises(ValueError, match="optimizer must not look at lr, which is traced: give a schedule a peak of 1"):
        run(digits, grid, steps=10, optimizer=lambda lr: optax.sgd(schedule(lr)))
    result = run(digits, grid, steps=10, optimizer=lambda lr: optax.sgd(lambda count: lr * schedule(1.0)(count)))
    assert np.isfinite(result.losses).all()


def test_an_optimizer_that_changes_zero_padding_has_none(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    grids = [Grid(lr=[0.1], reg=[1e-3], hidden=hidden) for hidden in ([4], [4, 16])]
    one, both = (run(digits, grid, steps=20, optimizer=optax.adafactor).losses for grid in grids)
    np.testing.assert_array_equal(one[0], both[0])
    monkeypatch.setattr(planning, "alignment", lambda devices: 32)
    for optimizer, columns in ((optax.adafactor, 1), (optax.adam, 32)):
        (group,) = sweep.plan(digits, Grid(lr=[0.1], reg=[0.0]), steps=1, optimizer=optimizer).groups
        assert group.problem.alignment == columns


@each_optimizer
def test_padded_units_stay_exactly_zero(optimizer: Optimizer, digits: Splits) -> None:
    sizes = ((64, 3, 10), (64, 7, 10), (64, 20, 10))
    problem = cells.Problem(NET, optimizer, sizes, jnp.dtype("float32"), digits.parts)
    hyper, which = Hyper(jnp.full(3, 0.5), jnp.array([0.0, 1e-2, 0.1])), jnp.arange(3)
    replicates = cells.Replicates(jax.vmap(jax.random.key)(jnp.arange(2, dtype=jnp.uint32)), jnp.ones(2, int))
    examples = cells.Examples(jnp.asarray(digits.train.X), jnp.asarray(digits.train.y))
    state = jax.jit(functools.partial(cells.init, problem))(hyper, which, replicates)
    batches = [sampling.minibatches(seed, range(STEPS), batch_size=BATCH, num_examples=1257) for seed in range(2)]
    chunk = jax.jit(functools.partial(cells.run, problem))
    state, losses = chunk(state, hyper, replicates.fold, examples, np.stack(batches, axis=1))
    assert (losses[-1] < losses[0]).all()

    def live_units(params: two_layer.Params) -> None:
        """Nothing but zeros beyond a net's own units; inside them, something."""
        params = jax.device_get(params)
        for cell, (_, hidden, _) in enumerate(sizes):
            for array in (params.W1[..., cell], params.b1[..., cell], params.W2[..., cell].mT):
                assert not array[..., hidden:].any()
                assert array[..., :hidden].any()

    live_units(state.params)
    # The optimizer's moments have the params' tree.
    for moments in jax.tree.leaves(state.opt_state, is_leaf=lambda tree: isinstance(tree, two_layer.Params)):
        if isinstance(moments, two_layer.Params):
            live_units(moments)


def test_histories_are_those_of_the_loop_of_the_course(digits: Splits) -> None:
    """Fed the same minibatches and initial weights, `torchref.nn_train` records the same."""
    epoch = optimizers.steps_per_epoch(1257, BATCH)
    grid = Grid(lr=[0.1, 0.5], reg=[1e-3], hidden=[20, 7])
    optimizer = optimizers.decayed(optax.sgd, 0.9, epoch)
    steps = 4 * epoch + 1  # chunks of two lengths alone: 1, and an epoch
    found = run(digits, grid, steps=steps, optimizer=optimizer, history=True)
    assert found.history.step.tolist() == [0, 25, 50, 75, 100]
    batches = sampling.minibatches(0, range(steps), batch_size=BATCH, num_examples=1257)
    tensors = [torch.tensor(array) for array in (digits.train.X, digits.train.y, digits.val.X, digits.val.y)]
    tensors[1], tensors[3] = tensors[1].long(), tensors[3].long()
    for row, cell in enumerate(grid.cells()):
        params = two_layer.init(64, cell["hidden"], 10, key=jax.random.key(0), scale=0.1)
        theirs = torchref.nn_train(
            {name: torch.tensor(np.asarray(array)) for name, array in params._asdict().items()},
            torchref.nn_forward_backward,
            torchref.nn_predict,
            *tensors,
            cell["lr"],
            0.9,
            cell["reg"],
            steps,
            BATCH,
            batches=torch.tensor(batches),
        )
        np.testing.assert_allclose(found.losses[row], theirs["loss_history"], rtol=1e-3)
        np.testing.assert_allclose(found.history.train_accuracy[row], theirs["train_acc_history"], atol=1.1 / BATCH)
        np.testing.assert_allclose(found.history.val_accuracy[row], theirs["val_acc_history"], atol=1.1 / 270)


def test_recording_changes_nothing(digits: Splits) -> None:
    without, recorded = (run(digits, CALM, steps=51, history=history) for history in (False, True))
    assert without.history is None
    np.testing.assert_allclose(recorded.losses, without.losses, rtol=1e-5)
    np.testing.assert_allclose(recorded.table["val_loss"], without.table["val_loss"], rtol=1e-5)


def test_nets_that_diverge_are_marked_and_leave_the_others_as_they_were_bit_for_bit(digits: Splits) -> None:
    calm, wild = (run(digits, replace(CALM, lr=[0.1, lr, 0.5]), steps=51, history=True) for lr in (0.2, 1e4))
    gone = wild.table["lr"] == 1e4
    assert (wild.table["diverged_at"][gone] > 0).all()
    assert (wild.table["rank"][gone] == 0).all()
    for name in ("train_accuracy", "val_accuracy"):
        kept = getattr(wild.history, name)
        assert np.isnan(kept[gone][:, 1:]).all()
        np.testing.assert_array_equal(kept[~gone], getattr(calm.history, name)[~gone])
    np.testing.assert_array_equal(wild.losses[~gone], calm.losses[~gone])
    for column in SCORES:
        np.testing.assert_array_equal(wild.table[column][~gone], calm.table[column][~gone])


def test_sizes_share_a_program_unless_padding_would_waste_more_than_it_saves() -> None:
    assert blocks.groups({}, 1e10) == []
    assert blocks.groups(dict.fromkeys([128, 2, 32, 8], 1), 1.0) == [(2, 8, 32, 128)]
    assert blocks.groups(dict.fromkeys([128, 2, 32, 8], 1), 1e15) == [(2,), (8,), (32,), (128,)]
    # 512 units of padding for three programs saved, or 9 for one.
    assert blocks.groups(dict.fromkeys([100, 101, 1000], 1), blocks.COMPILATION / 100) == [(100, 101), (1000,)]


@pytest.mark.parametrize("compilation", [0.0, *slow(1e30)])
def test_table_is_the_same_however_sizes_are_grouped(
    compilation: float, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(digits, CALM, steps=51)
    monkeypatch.setattr(blocks, "COMPILATION", compilation)
    groups = sweep.plan(digits, CALM, steps=51, batch_size=BATCH, classifier=NET).groups
    assert len(groups) == (1 if compilation else 2)
    found = run(digits, CALM, steps=51)
    np.testing.assert_array_equal(found.table[[*CALM.axes]], whole.table[[*CALM.axes]])
    np.testing.assert_allclose(found.losses, whole.losses, rtol=1e-3)
    np.testing.assert_allclose(found.table["val_loss"], whole.table["val_loss"], rtol=1e-3)
    assert found.params.W1.shape == (64, whole.table["hidden"][whole.best])


@pytest.mark.parametrize("cells", [5, *slow(1, 12)])
def test_table_is_the_same_in_blocks_of_any_size(cells: int, digits: Splits) -> None:
    (group,) = sweep.plan(digits, CALM, steps=51, batch_size=BATCH, classifier=NET).groups
    whole = run(digits, CALM, steps=51)
    found = run(digits, CALM, steps=51, memory=group.memory.data + cells * group.memory.cell)
    np.testing.assert_allclose(found.losses, whole.losses, rtol=1e-3)
    np.testing.assert_allclose(found.table["val_loss"], whole.table["val_loss"], rtol=1e-3)


@pytest.mark.parametrize(
    ("hidden", "error", "sentence"),
    [
        ([0], ValueError, "hidden must hold finite values not below 1, got 0"),
        ([32, -8], ValueError, "hidden must hold finite values not below 1, got -8"),
        ([2.5], TypeError, r"hidden must hold integers, got \[2.5\]"),
        ([32, 32], ValueError, "hidden must hold each value once, got 32 2 times"),
    ],
)
@pytest.mark.usefixtures("no_type_checker")
def test_a_bad_hidden_size_is_refused(hidden: list, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Grid([0.1], [0.0], hidden=hidden)


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("model", [linear, two_layer_net])
def test_a_bad_init_scale_is_refused(model: Callable[..., Classifier], scale: float) -> None:
    with pytest.raises(ValueError, match=rf"^init_scale must be finite and not below 0, got {scale}$"):
        model(init_scale=scale)


@pytest.mark.parametrize("too_large", [10**6, 10**9, 10**15])
def test_a_hidden_size_too_large_for_memory_is_refused_with_the_largest_that_fits(
    too_large: int, digits: Splits
) -> None:
    with pytest.raises(ValueError, match=r"hidden must be at most (\d+) for a net to fit in memory") as refused:
        run(digits, Grid([0.1], [0.0], hidden=[8, too_large]), steps=5, memory=10**8)
    largest = int(str(refused.value).split()[5])
    for hidden in (largest, largest + 1):
        problem = cells.problem(digits, (hidden,), classifier=NET)
        assert (planning.nbytes(digits) + cells.estimate(problem, batch_size=BATCH) <= 10**8) == (hidden == largest)


def test_a_grid_that_does_not_suit_the_model_is_refused(digits: Splits) -> None:
    with pytest.raises(ValueError, match=r"grid.hidden must be given for a net and for nothing else, got \(\)"):
        run(digits, Grid([0.1], [0.0]), steps=5)
    with pytest.raises(ValueError, match=r"grid.hidden must be given for a net and for nothing else, got \(8,\)"):
        run(digits, Grid([0.1], [0.0], hidden=[8]), steps=5, classifier=linear())


def test_values_beyond_the_hidden_axis_are_whole_numbers() -> None:
    grid = Grid([0.1], [0.0], hidden=[2, 8, 32])
    assert grid.beyond(2) == {"hidden": (32, 128, 512)}
    assert grid.beyond(0) == {}
