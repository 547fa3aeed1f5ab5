"""The training loop, step by step, against torchref's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import torchref
from jaxcls import metrics, optimizers, sampling, softmax, train, two_layer
from jaxcls.classifier import linear, two_layer_net
from jaxcls.data import Splits
from jaxcls.optimizers import Optimizer
from jaxcls.train import Hyper, State
from parity_tests.support.cases import slow

STEPS = 200
TRAJECTORY = {"float32": 1e-4, "float64": 1e-10}  # rounding grows from step to step

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


def problem(splits: Splits, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X, y = np.asarray(softmax.append_ones(splits.train.X.astype(dtype))), splits.train.y
    return 1e-3 * rng.standard_normal((65, 10)).astype(dtype), X, y, rng.integers(0, len(y), (STEPS, 50))


@pytest.mark.parametrize(
    ("lr", "reg"), [(0.1, 1e-3), *(pytest.param(*other, marks=pytest.mark.slow) for other in ((1.0, 0.0), (0.03, 0.3)))]
)
def test_weights_and_losses_follow_torch_step_by_step(lr: float, reg: float, digits: Splits, dtype: np.dtype) -> None:
    W, X, y, batches = problem(digits, dtype)
    hyper = Hyper(jnp.asarray(lr, dtype), jnp.asarray(reg, dtype))
    step = jax.jit(functools.partial(train.step, linear(), optax.sgd))
    state = State(jnp.asarray(W), optax.sgd(hyper.lr).init(W))
    tensors = torch.tensor(X), torch.tensor(y, dtype=torch.int64)
    torch_W, rows = torch.tensor(W), torch.tensor(batches)
    for t in range(STEPS):
        state, loss = step(state, hyper, X[batches[t]], y[batches[t]])
        torch_W, losses = torchref.train_linear_classifier(
            torchref.softmax_loss_vectorized, torch_W, *tensors, lr, reg, num_iters=1, batches=rows[t : t + 1]
        )
        expected = torch_W.numpy()
        np.testing.assert_allclose(loss, losses[0], rtol=TRAJECTORY[dtype.name], err_msg=f"step {t}")
        error = np.abs(state.params - expected).max() / np.abs(expected).max()
        assert error < TRAJECTORY[dtype.name], f"step {t}: weights are off by {error:.1e} of their size"


def test_scanned_loop_is_the_loop_of_torch(digits: Splits, dtype: np.dtype) -> None:
    W, X, y, batches = problem(digits, dtype)
    hyper = Hyper(jnp.asarray(0.1, dtype), jnp.asarray(1e-3, dtype))
    step = functools.partial(train.step, linear(), optax.sgd)
    state = State(jnp.asarray(W), optax.sgd(hyper.lr).init(W))
    state, losses = jax.jit(functools.partial(train.run, step))(state, hyper, X, y, batches)
    torch_W, torch_losses = torchref.train_linear_classifier(
        torchref.softmax_loss_vectorized,
        torch.tensor(W),
        torch.tensor(X),
        torch.tensor(y, dtype=torch.int64),
        0.1,
        1e-3,
        num_iters=STEPS,
        batches=torch.tensor(batches),
    )
    np.testing.assert_allclose(losses, torch_losses, rtol=TRAJECTORY[dtype.name])
    expected = torch_W.numpy()
    assert np.abs(state.params - expected).max() < TRAJECTORY[dtype.name] * np.abs(expected).max()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_torchref_runs_on_any_device_and_returns_what_it_was_given(device: str, digits: Splits) -> None:
    X, y = torch.tensor(digits.train.X[:40], device=device), torch.tensor(digits.train.y[:40], device=device).long()
    W = 1e-3 * torch.randn(64, 10, device=device)
    loss, dW = torchref.softmax_loss_naive(W, X, y, 0.1)
    torch.testing.assert_close((loss, dW), torchref.softmax_loss_vectorized(W, X, y, 0.1), atol=1e-5, rtol=1e-5)
    trained, _ = torchref.train_linear_classifier(torchref.softmax_loss_vectorized, W, X, y, num_iters=2)
    assert loss.device.type == dW.device.type == trained.device.type == device
    assert torchref.predict_linear_classifier(trained, X).shape == (40,)


# At a learning rate of 1, minibatches of 10 throw this net about so much that it amplifies rounding past 1e-4.
@pytest.mark.parametrize("lr", [0.1, 0.3])
def test_the_two_layer_net_follows_torch_step_by_step_decay_included(
    lr: float, digits: Splits, dtype: np.dtype
) -> None:
    rng = np.random.default_rng(0)
    shapes = (64, 20), (20,), (20, 10), (10,)
    params = two_layer.Params(*(0.1 * rng.standard_normal(shape).astype(dtype) for shape in shapes))
    X, y = digits.train.X[:300].astype(dtype), digits.train.y[:300]
    batches = rng.integers(0, len(y), (STEPS, 10))  # 30 steps an epoch
    net = two_layer_net()
    optimizer = optimizers.decayed(optax.sgd, 0.9, steps_per_epoch=30)
    hyper = Hyper(jnp.asarray(lr, dtype), jnp.asarray(1e-3, dtype))
    state = State(jax.tree.map(jnp.asarray, params), optimizer(hyper.lr).init(params))

    def step(state: State, hyper: Hyper, X: jax.Array, y: jax.Array) -> tuple[State, tuple]:
        after, loss = train.step(net, optimizer, state, hyper, X, y)
        return after, (loss, after.params)

    _, (losses, along) = jax.jit(functools.partial(train.run, step))(state, hyper, X, y, batches)

    theirs = {name: torch.tensor(array) for name, array in params._asdict().items()}
    along_theirs: list[dict] = []

    def recorded_loss(params: dict, X: torch.Tensor, y: torch.Tensor | None = None, reg: float = 0.0) -> object:
        if y is not None:
            along_theirs.append(dict(params))  # before each update
        return torchref.nn_forward_backward(params, X, y, reg)

    tensors = torch.tensor(X), torch.tensor(y).long()
    history = torchref.nn_train(
        theirs,
        recorded_loss,
        torchref.nn_predict,
        *tensors,
        *tensors,
        lr,
        0.9,
        1e-3,
        STEPS,
        10,
        batches=torch.tensor(batches),
    )
    np.testing.assert_allclose(losses, history["loss_history"], rtol=TRAJECTORY[dtype.name])
    assert len(history["val_acc_history"]) == len(history["train_acc_history"]) == 7  # steps 0, 30, ... 180
    along_theirs.append(theirs)
    for t in range(STEPS):
        for name, array in along._asdict().items():
            expected = along_theirs[t + 1][name].numpy()
            error = np.abs(array[t] - expected).max() / np.abs(expected).max()
            assert error < TRAJECTORY[dtype.name], f"step {t}: {name} is off by {error:.1e} of its size"


def test_torchref_draws_its_own_minibatches_and_learns(digits: Splits, capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(0)
    X, y = torch.tensor(digits.train.X), torch.tensor(digits.train.y, dtype=torch.int64)
    W, losses = torchref.train_linear_classifier(
        torchref.softmax_loss_vectorized, None, X, y, 0.1, 1e-3, num_iters=300, verbose=True
    )
    assert losses[0] == pytest.approx(np.log(10), abs=1e-3)
    accuracy = (torchref.predict_linear_classifier(W, torch.tensor(digits.val.X)).numpy() == digits.val.y).mean()
    assert accuracy > 0.9
    assert capsys.readouterr().out.count("iteration") == 3


def test_an_epoch_has_the_whole_minibatches_that_fit_but_at_least_one() -> None:
    assert [optimizers.steps_per_epoch(*sizes) for sizes in ((49_000, 200), (1257, 50), (100, 50), (49, 50))] == [
        245,
        25,
        2,
        1,
    ]


@pytest.mark.parametrize(("decay", "epoch"), [(0.0, 5), (1.1, 5), (0.5, 0)])
def test_a_decay_that_is_none_is_refused(decay: float, epoch: int) -> None:
    with pytest.raises(ValueError, match=r"^(decay must lie in \(0, 1\]|steps_per_epoch must be at least 1), got "):
        optimizers.decayed(optax.sgd, decay, epoch)


@pytest.mark.parametrize("optimizer", [optax.adam, optax.rmsprop, functools.partial(optax.sgd, momentum=0.9)])
def test_any_optax_optimizer_trains_from_a_traced_learning_rate(optimizer: Optimizer, digits: Splits) -> None:
    X, y, key = softmax.append_ones(digits.train.X), jnp.asarray(digits.train.y), jax.random.key(0)

    @jax.jit
    def trained(lr: jax.Array) -> jax.Array:
        hyper = Hyper(lr, jnp.float32(0))
        state = train.init(optimizer, softmax.init(65, 10, key=key), hyper)
        batches = sampling.minibatches(0, range(200), batch_size=50, num_examples=len(y))
        return train.run(functools.partial(train.step, linear(), optimizer), state, hyper, X, y, batches)[1]

    losses = trained(jnp.float32(0.01))
    assert losses[-20:].mean() < 0.4 * losses[0]


def test_a_diverged_model_takes_no_more_steps(digits: Splits) -> None:
    W, X, y, _ = problem(digits, np.dtype("float32"))
    hyper = Hyper(jnp.float32(0.1), jnp.float32(1e30))
    state = State(1e10 * jnp.asarray(W), optax.sgd(hyper.lr).init(W))
    after, loss = train.step(linear(), optax.sgd, state, hyper, jnp.asarray(X[:50]), jnp.asarray(y[:50]))
    assert not np.isfinite(loss)
    np.testing.assert_array_equal(after.params, state.params)


@pytest.mark.parametrize("size", [1000, *slow(1257, 250, 1)])
def test_every_example_of_a_set_is_scored_once(size: int, digits: Splits) -> None:
    W = jax.random.normal(jax.random.key(0), (65, 10, 2))
    X, y = softmax.append_ones(digits.train.X), jnp.asarray(digits.train.y)
    reg, score, rows = jnp.array([0.0, 0.1]), jax.jit(functools.partial(train.score, linear())), np.arange(len(y))
    parts = []
    for first in range(0, len(y), size):
        some, share = train.filled_up(rows[first : first + size], size, len(y))
        parts.append(score(W, reg, X[some], y[some], jnp.asarray(share, W.dtype)))
    found = jax.tree.map(lambda *parts: sum(parts), *(part for part, _ in parts))
    for model in range(2):
        predicted = np.argmax(np.asarray(X) @ np.asarray(W[..., model]), axis=1)
        right = np.concatenate([part[model] for _, part in parts])[: len(y)]
        np.testing.assert_array_equal(right, predicted == y)
        np.testing.assert_array_equal(found.num_correct[model], np.bincount(y[predicted == y], minlength=10))
        np.testing.assert_array_equal(found.num_predicted[model], np.bincount(predicted, minlength=10))
        np.testing.assert_array_equal(found.num_examples[model], np.bincount(y, minlength=10))
        rank = np.asarray(metrics.rank(X @ W[..., model], y))
        assert found.num_top5[model] == np.sum(rank < 5)
        np.testing.assert_allclose(found.loss[model], softmax.loss(W[..., model], X, y, reg[model]), rtol=1e-5)
