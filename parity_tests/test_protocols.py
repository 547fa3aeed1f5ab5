"""Heads of published probes beside torch's: the same weights and minibatches, so the same losses step by step."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import torchref
from jaxcls import data, optimizers, sampling, sweep
from jaxcls.classifier import Classifier, linear
from jaxcls.cli import inputs, protocols
from jaxcls.data import Splits
from jaxcls.grid import Grid
from jaxcls.losses import cross_entropy_and_grad
from jaxcls.result import SweepResult
from parity_tests.support.cases import slow

STEPS, BATCH, SEED = 40, 64, 3
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


@pytest.fixture(scope="module")
def source() -> data.Source:
    return data.load_digits()


def head(W: np.ndarray) -> nn.Linear:
    layer = nn.Linear(len(W) - 1, W.shape[1], dtype=torch.tensor(W).dtype)
    layer.weight, layer.bias = nn.Parameter(torch.tensor(W[:-1].T.copy())), nn.Parameter(torch.tensor(W[-1]))
    return layer


def begun_at(W: np.ndarray) -> Classifier:
    return linear()._replace(init=lambda *sizes, key, dtype: jnp.asarray(W, dtype))


def drawn(splits: Splits) -> np.ndarray:
    draw = {"batch_size": BATCH, "num_examples": len(splits.train), "sampling": "epochs"}
    return sampling.minibatches(SEED, range(STEPS), **draw)


def both(splits: Splits, dtype: np.dtype) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Torch's examples and labels, the minibatches, and the initial weights."""
    W = np.random.default_rng(0).normal(scale=0.01, size=(65, 10)).astype(dtype)
    return torch.tensor(splits.train.X), torch.tensor(splits.train.y.astype(np.int64)), drawn(splits), W


def swept(splits: Splits, grid: Grid, W: np.ndarray, optimizer: optimizers.Optimizer) -> SweepResult:
    return sweep.run(
        splits,
        grid,
        steps=STEPS,
        batch_size=BATCH,
        sampling="epochs",
        classifier=begun_at(W),
        optimizer=optimizer,
    )


def cosine(optimizer: optimizers.Optimizer, warmup: int = 0) -> optimizers.Optimizer:
    return optimizers.scheduled(optimizer, optimizers.schedule("cosine", STEPS, warmup=warmup))


def test_heads_of_dinov2_train_as_in_torch(source: data.Source, dtype: np.dtype) -> None:
    """SGD with momentum and a cosine, at every learning rate."""
    splits, rates = data.raw(source), (1e-4, 1e-3, 1e-2)
    X, y, batches, W = both(splits, dtype)
    heads, losses = torchref.dinov2_linear_heads(X, y, batches, learning_rates=rates, initial=[head(W)] * 3)
    lr = [rate * BATCH / 256 for rate in rates]
    found = swept(splits, Grid(lr, reg=[0.0], seed=[SEED]), W, cosine(optimizers.OPTIMIZERS["momentum"]))
    np.testing.assert_allclose(found.losses.T, losses, rtol=TOLERANCE[dtype.name])
    weights = heads[found.best].weight.detach().numpy().T
    np.testing.assert_allclose(found.params[:-1], weights, rtol=TOLERANCE[dtype.name], atol=TOLERANCE[dtype.name])


def test_heads_of_clip_benchmark_train_as_in_torch(source: data.Source, dtype: np.dtype) -> None:
    """AdamW with every decoupled weight decay, the bias included, on features of unit length, in one program."""
    splits, decays = data.l2(source), [1e-6, 1e-2, 1.0, 10.0]
    X, y, batches, W = both(splits, dtype)
    np.testing.assert_allclose(
        X, nn.functional.normalize(torch.tensor(source.X[source.train].astype(dtype))), rtol=1e-6
    )
    _, losses = torchref.clip_benchmark_heads(X, y, batches, weight_decays=decays, initial=[head(W)] * 4)
    grid = Grid([0.1], reg=[0.0], weight_decay=decays, seed=[SEED])
    found = swept(splits, grid, W, cosine(optimizers.OPTIMIZERS["adamw"]))
    np.testing.assert_allclose(found.losses.T, losses, rtol=TOLERANCE[dtype.name])


def test_heads_of_capi_train_as_in_torch(source: data.Source, dtype: np.dtype) -> None:
    """AdamW that leaves out the bias, another b2, and a warm-up."""
    splits, rates, decays, warmup = data.standard(source), [1e-3, 1e-2], [5e-4, 5e-2], 10
    X, y, batches, W = both(splits, dtype)
    heads = [head(W) for _ in range(4)]
    groups = []
    for one, (rate, decay) in zip(heads, [(rate, decay) for rate in rates for decay in decays], strict=True):
        groups.append({"params": [one.weight], "lr": rate, "weight_decay": decay})
        groups.append({"params": [one.bias], "lr": rate, "weight_decay": 0.0})
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    factor = optimizers.schedule("cosine", STEPS, warmup=warmup)
    _, losses = torchref.train_heads(heads, adamw, LambdaLR(adamw, lambda t: float(factor(t))), X, y, batches)
    ours = functools.partial(optimizers.adamw, bias_row=64)
    grid = Grid(rates, reg=[0.0], weight_decay=decays, b2=[0.95], seed=[SEED])
    found = swept(splits, grid, W, cosine(ours, warmup))
    np.testing.assert_allclose(found.losses.T, losses, rtol=TOLERANCE[dtype.name])
    # With both ends of the warm-up and of the cosine included, as capi has them, a step's rate differs by a tenth.
    scaled = [rate * 256 / BATCH for rate in rates]
    _, theirs = torchref.capi_heads(
        X, y, batches, warmup=warmup, learning_rates=scaled, weight_decays=decays, eps=1e-8, initial=[head(W)] * 4
    )
    assert abs(found.losses.T - theirs.numpy()).max() < 0.1


def test_initial_weights_of_torch(source: data.Source) -> None:
    """Uniform within 1 / √d, the bias too: of the same deviation as `nn.Linear`."""
    W = np.asarray(linear(init="uniform").init(65, 1000, key=jax.random.key(0)))
    theirs = nn.Linear(64, 1000)
    assert abs(W).max() <= 1 / 8
    assert W[:-1].std() == pytest.approx(theirs.weight.std().item(), rel=0.01)
    assert W[-1].std() == pytest.approx(theirs.bias.std().item(), rel=0.1)


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]] = {
    "constant": lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
    "steps": lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [24, 32]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_torch(name: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, theirs = SCHEDULES[name](optimizer), []
    for _ in range(STEPS):
        theirs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    factor = optimizers.schedule(name, STEPS)
    np.testing.assert_allclose([factor(t) for t in range(STEPS)], theirs, rtol=1e-5, atol=1e-7)
    risen = optimizers.schedule(name, STEPS + 10, warmup=10)
    np.testing.assert_allclose([risen(t) for t in range(10)], np.arange(10) / 10, atol=1e-7)
    np.testing.assert_allclose([risen(10 + t) for t in range(STEPS)], theirs, rtol=1e-5, atol=1e-7)


def test_every_axis_of_the_optimizer_and_the_loss_is_what_it_would_be_alone(source: data.Source) -> None:
    """Traced, in one program, beside the optimizer that is made with the number."""
    splits = data.standard(source)
    run = functools.partial(sweep.run, splits, steps=60)
    for axis, values, optimizer in (
        ("momentum", (0.0, 0.9), optax.sgd),
        ("b1", (0.5, 0.9), optax.adam),
        ("b2", (0.9, 0.99), optax.adam),
        ("weight_decay", (0.0, 0.1), optax.adamw),
    ):
        found = run(Grid([0.01], [1e-3], **{axis: values}), optimizer=optimizer)
        for value, losses in zip(values, found.losses, strict=True):
            alone = run(Grid([0.01], [1e-3]), optimizer=functools.partial(optimizer, **{axis: value}))
            np.testing.assert_allclose(losses, alone.losses[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("grid", "optimizer", "sentence"),
    [
        (Grid([0.1], [0.0], weight_decay=[0.1]), "sgd", "optimizer must take the grid's weight_decay as a keyword"),
        (Grid([0.1], [0.0], momentum=[0.1]), lambda lr: optax.sgd(lr), "optimizer must take the grid's momentum as a"),
    ],
)
def test_an_axis_that_the_optimizer_does_not_take_is_refused(
    grid: Grid, optimizer: str | optimizers.Optimizer, sentence: str, source: data.Source
) -> None:
    with pytest.raises(TypeError, match=f"^{sentence}"):
        sweep.run(data.standard(source), grid, steps=1, optimizer=optimizer)


def test_shares_are_below_1() -> None:
    for axis in ("momentum", "b1", "b2", "label_smoothing"):
        with pytest.raises(ValueError, match=f"^{axis} must hold values below 1, got 1$"):
            Grid([0.1], [0.0], **{axis: [1.0]})


@pytest.mark.parametrize("smoothing", [0.1, *slow(0.0, 0.9)])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_label_smoothing_is_that_of_torch(smoothing: float, scale: float, dtype: np.dtype) -> None:
    rng = np.random.default_rng(0)
    logits, y = (scale * rng.normal(size=(20, 7))).astype(dtype), rng.integers(0, 7, 20)
    theirs = torch.tensor(logits, requires_grad=True)
    expected = nn.functional.cross_entropy(theirs, torch.tensor(y), label_smoothing=smoothing)
    expected.backward()
    loss, dlogits = cross_entropy_and_grad(jnp.asarray(logits), y, label_smoothing=smoothing)
    tolerance = 50 * np.finfo(dtype).eps
    np.testing.assert_allclose(loss, expected.item(), rtol=tolerance)
    np.testing.assert_allclose(dlogits, theirs.grad, rtol=tolerance, atol=tolerance)
    stack = np.stack([logits, -logits], axis=-1)
    losses, dstack = cross_entropy_and_grad(stack, y, label_smoothing=jnp.array([smoothing, 0.5], dtype))
    np.testing.assert_allclose(losses[0], expected.item(), rtol=tolerance)
    np.testing.assert_allclose(dstack[..., 0], theirs.grad, rtol=tolerance, atol=tolerance)


def test_label_smoothing_beside_jax_grad(dtype: np.dtype) -> None:
    rng = np.random.default_rng(1)
    logits, y = jnp.asarray(rng.normal(size=(6, 4)), dtype), jnp.asarray(rng.integers(0, 4, 6))
    weights = jnp.asarray(rng.dirichlet(np.ones(6)), dtype)

    def plain(logits: jax.Array) -> jax.Array:
        targets = 0.8 * jax.nn.one_hot(y, 4, dtype=dtype) + 0.2 / 4
        return -jnp.sum(weights[:, None] * targets * jax.nn.log_softmax(logits))

    found = cross_entropy_and_grad(logits, y, weights, 0.2)
    for ours, theirs in zip(found, jax.value_and_grad(plain)(logits), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_peak_is_found_by_19_of_97() -> None:
    index, tried = torchref.clip_benchmark_search(lambda k: -abs(k - 50) + 200)
    assert (index, len(tried)) == (50, 19)


def test_few_shots_are_those_of_scikit_learn(source: data.Source) -> None:
    """The subsets of each try: as many examples of every class; and each try's optimum."""
    for few in inputs.shots(source, 8, 2, seed=5):
        assert (np.bincount(source.y[few.train]) == 8).all()
        assert np.isin(few.train, source.train).all()
    first, second = (few.train for few in inputs.shots(source, 8, 2, seed=5))
    assert not np.array_equal(first, second)
    with pytest.raises(
        ValueError, match=r"^--shots must be at most the examples of each class, 130 of class 0, got 999$"
    ):
        inputs.shots(source, 999, 1, seed=0)


def test_every_protocol_has_flags_of_the_command() -> None:
    from jaxcls.cli.probe import Config

    assert set(protocols.PROTOCOLS) == set(protocols.Name.__args__)
    for flags in protocols.PROTOCOLS.values():
        Config(train="feats.npz", **flags)
