"""Heads of published probes beside torch's: the same weights and minibatches, so the same losses step by step."""

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss, top_k_accuracy_score
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import torchref
from jaxcls import crossval, data, optimizers, probe, sampling, softmax, sweep
from jaxcls.artifacts import record
from jaxcls.classifier import Classifier, linear
from jaxcls.cli import inputs, probe_config, protocols
from jaxcls.data import Splits
from jaxcls.grid import Grid
from jaxcls.losses import cross_entropy_and_grad
from jaxcls.result import SweepResult
from parity_tests.support import command
from parity_tests.support.cases import slow

PROGRAM = Path(__file__).parents[1] / "examples" / "linear_probe.py"
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


def drawn(splits: Splits, epoch_size: int | None = None) -> list[np.ndarray]:
    draw = {"batch_size": BATCH, "num_examples": len(splits.train), "sampling": "epochs", "epoch_size": epoch_size}
    return [sampling.minibatches(SEED, range(step, step + 1), **draw)[0] for step in range(STEPS)]


def both(splits: Splits, dtype: np.dtype) -> tuple[torch.Tensor, torch.Tensor, list[np.ndarray], np.ndarray]:
    """Torch's examples and labels, the minibatches, and the initial weights."""
    W = np.random.default_rng(0).normal(scale=0.01, size=(65, 10)).astype(dtype)
    return torch.tensor(splits.train.X), torch.tensor(splits.train.y.astype(np.int64)), drawn(splits), W


def swept(
    splits: Splits,
    grid: Grid,
    W: np.ndarray,
    optimizer: optimizers.Optimizer,
    last_batch: sampling.LastBatch = "continued",
) -> SweepResult:
    return sweep.run(
        splits,
        grid,
        steps=STEPS,
        batch_size=BATCH,
        sampling="epochs",
        last_batch=last_batch,
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
    """AdamW with every decoupled weight decay, the bias included, on features of unit length, in one program.

    The last minibatch of an epoch is smaller, as that of a ``DataLoader``.
    """
    splits, decays = data.l2(source), [1e-6, 1e-2, 1.0, 10.0]
    X, y, _, W = both(splits, dtype)
    batches = drawn(splits, len(splits.train))
    assert len({len(batch) for batch in batches}) == 2
    np.testing.assert_allclose(
        X, nn.functional.normalize(torch.tensor(source.X[source.train].astype(dtype))), rtol=1e-6
    )
    _, losses = torchref.clip_benchmark_heads(X, y, batches, weight_decays=decays, initial=[head(W)] * 4)
    grid = Grid([0.1], reg=[0.0], weight_decay=decays, seed=[SEED])
    found = swept(splits, grid, W, cosine(optimizers.OPTIMIZERS["adamw"]), last_batch="kept")
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


def test_each_cell_may_have_its_own_decay_of_the_learning_rate(source: data.Source) -> None:
    run = functools.partial(sweep.run, data.standard(source), steps=60)
    grid = Grid([1.0], [1e-3], momentum=[0.5, 0.9], decay=[0.5, 1.0])
    found = run(grid, optimizer=optimizers.decayed(optax.sgd, None, 20))
    for row, losses in zip(found.table, found.losses, strict=True):
        optimizer = functools.partial(optax.sgd, momentum=row["momentum"].item())
        alone = run(Grid([1.0], [1e-3]), optimizer=optimizers.decayed(optimizer, row["decay"].item(), 20))
        np.testing.assert_allclose(losses, alone.losses[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("grid", "optimizer", "sentence"),
    [
        (Grid([0.1], [0.0], decay=[0.9]), "sgd", "optimizer must take the grid's decay as a keyword"),
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


def test_few_shots_are_as_many_of_every_class(source: data.Source) -> None:
    splits = data.standard(source)
    first, second = inputs.shots(splits, 8, 2, seed=5)
    for rows in (first, second):
        assert (np.bincount(splits.train.y[rows]) == 8).all()
    assert not np.array_equal(first, second)
    with pytest.raises(
        ValueError, match=r"^--shots must be at most the examples of each class, .* of class 0, got 999$"
    ):
        inputs.shots(splits, 999, 1, seed=0)


@pytest.fixture(scope="module")
def files(source: data.Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rows = tmp_path_factory.mktemp("files"), np.random.default_rng(0).permutation(len(source.y))
    for name, some in (("train", rows[:1000]), ("test", rows[1000:1400]), ("other", rows[1400:])):
        np.savez(folder / name, X=source.X[some], y=source.y[some])
    return folder


def run(*args: object, cwd: Path) -> Path:
    """A probe that must succeed; its folder."""
    out = f"run{len(list(cwd.iterdir()))}"
    done = command.run(PROGRAM, "--train", "train.npz", "--test", "test.npz", *args, "--out", out, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines()[:25])) <= 80
    return cwd / out


def given(files: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(files / f"{name}.npz") as arrays:
        return arrays["X"].astype(np.float64), arrays["y"]


def subsets(files: Path, count: int, tries: int) -> list[data.Source]:
    """The subsets that the command draws."""
    paths = inputs.Files(files / "train.npz", None, [files / "test.npz"], {}, data.NAMES)
    source = inputs.read(paths, hold_out=inputs.HELD_OUT, folds=0, seed=0).source
    drawn = inputs.shots(data.raw(source), count, tries, seed=0)
    return [dataclasses.replace(source, train=source.train[rows]) for rows in drawn]


def test_mteb_gives_what_scikit_learn_does_on_the_same_subsets(files: Path) -> None:
    tried = record.read(run("--protocol", "mteb", "--tries", 3, cwd=files)).record["tries"]
    X_test, y_test = given(files, "test")
    scores = []
    for few in subsets(files, 8, 3):
        X, y = few.X[few.train].astype(np.float64), few.y[few.train]
        fitted = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(X, y)
        scores.append((fitted.score(X_test, y_test), f1_score(y_test, fitted.predict(X_test), average="macro")))
    for name, each in zip(("accuracy", "macro_f1"), np.transpose(scores), strict=True):
        assert tried[name]["mean"] == pytest.approx(each.mean(), abs=1.1 / len(y_test))  # an example may lie between
        assert tried[name]["deviation"] == pytest.approx(each.std(), abs=2 / len(y_test))


def test_c_of_two_classes_is_that_of_scikit_learn(files: Path) -> None:
    """There, one column of weights is penalised, the difference of two."""
    for name in ("train", "test"):
        X, y = given(files, name)
        np.savez(files / f"two-{name}.npz", X=X[y < 2], y=y[y < 2])
    done = command.run(
        PROGRAM,
        *("--train", "two-train.npz", "--test", "two-test.npz", "--protocol", "dinov2-logreg"),
        *("--C", 1e-4, "--certify", "--out", "two"),
        cwd=files,
    )
    assert done.returncode == 0, done.stderr
    assert "(C 0.0001)" in done.stdout
    with np.load(files / "two-train.npz") as arrays:
        theirs = LogisticRegression(C=1e-4, tol=1e-10, max_iter=10_000).fit(arrays["X"], arrays["y"])
    W = record.read(files / "two").best["W"]
    np.testing.assert_allclose((W[:, 1] - W[:, 0])[:-1], theirs.coef_[0], atol=1e-5)


def test_big_vision_gives_what_its_formula_does_on_the_same_subsets(files: Path) -> None:
    """Its whitening adds 1e-5 to each deviation, and its bias is a feature of 100, hardly penalised."""
    out = run("--protocol", "big-vision-fewshot", "--tries", 2, cwd=files)
    X_test, y_test = given(files, "test")
    scores = []
    for few in subsets(files, 10, 2):
        X, y = few.X[few.train].astype(np.float64), few.y[few.train]
        mean, deviation = X.mean(axis=0), X.std(axis=0) + 1e-5
        A, B = (np.c_[(each - mean) / deviation, np.full(len(each), 100.0)] for each in (X, X_test))
        W = np.linalg.solve(A.T @ A + 1024 * np.eye(A.shape[1]), A.T @ (2.0 * np.eye(10)[y] - 1))
        scores.append(np.mean((B @ W).argmax(axis=1) == y_test))
    assert record.read(out).record["tries"]["accuracy"]["mean"] == pytest.approx(np.mean(scores), abs=3 / len(y_test))


def test_clip_benchmark_chooses_refits_and_can_be_used_elsewhere(files: Path) -> None:
    """Features of unit length: the saved weights predict the same by every way there is."""
    decays = "--weight-decay", 1e-6, 1.0, 100.0
    out = run("--protocol", "clip-benchmark", *decays, "--test", "test.npz", "other.npz", cwd=files)
    found = record.read(out)
    X, y = given(files, "test")
    names: dict[str, Any] = {"X": X.astype(np.uint8)}  # as someone may have them
    lines = record.reload_lines(out / "best.safetensors", "numpy", found.best["W"], unit_length=True)
    exec(lines, names)
    assert np.mean(names["y"] == y) == found.record["best"]["test_accuracy"]
    np.testing.assert_array_equal(
        torchref.load(out / "best.safetensors")(torch.tensor(X.astype(np.uint8))).argmax(1), names["y"]
    )
    assert "(X * X).sum(1)" in (out / "report.html").read_text()
    other = given(files, "other")
    exec(lines, names := {"X": other[0]})
    more = found.record["more_tests"]["other.npz"]["accuracy"]
    assert more["value"] == pytest.approx(np.mean(names["y"] == other[1]))
    assert more["low"] < more["value"] < more["high"]
    # Beside torch: the same protocol, other weights and minibatches.
    X_train, y_train = given(files, "train")
    unit = [
        torch.tensor(each / np.linalg.norm(each, axis=1, keepdims=True), dtype=torch.float32) for each in (X_train, X)
    ]
    batches, accuracies = torchref.epoch_batches(1000, 500, 20, seed=0), []
    for seed in range(3):
        torch.manual_seed(seed)
        (head,), _ = torchref.clip_benchmark_heads(unit[0], torch.tensor(y_train), batches, weight_decays=[1e-6])
        accuracies.append(np.mean(head(unit[1]).argmax(1).numpy() == y))
    spread = np.ptp(accuracies) + 2 / len(y)
    assert min(accuracies) - spread <= found.record["best"]["test_accuracy"] <= max(accuracies) + spread


MISTAKES = {
    "--shots 5 --folds 3": "--shots and --folds are two ways to draw train: give one of them",
    "--tries 3": "--tries are those of --shots: give that, too",
    "--shots 5 --choose one-se": "--choose one-se and --shots are two ways to choose: give one of them",
    "--choose one-se --select log-loss": "--choose one-se is for --select accuracy, got log-loss",
    "--weight-decay 0.1": "--weight-decay is for minibatches: add --solver sgd, ",
    "--solver sgd --weight-decay 0.1": "--weight-decay is for --solver adamw, got sgd",
    "--solver sgd --no-decay-bias": "--no-decay-bias is for adamw, got sgd",
    "--solver sgd --warmup 2000": "--warmup must lie in [0, 2000), fewer than the steps, got 2000",
    "--keep best": "--keep is for minibatches: add --solver sgd, ",
    "--solver sgd --keep best --folds 3": "--keep best chooses by a val, and --folds have none",
    "--refit --folds 3": "--refit is for a val: --folds train the best cell on all of train",
    "--refit --shots 3": "--refit is for a val: --shots train it on those alone",
    "--search peak --folds 3": "--search peak is a way to choose by val alone: leave out --folds, --shots and --choose",
    "--solver sgd --search peak": "grid must have one axis with several values for a peak, got lr, reg",
    "--protocol clip-benchmark --batch-size 0": "--batch-size must be at least 1, got 0",
    "--protocol dinov2-linear --reg 1 --C 1": "--reg and --C are two ways to name the penalty: give one of them",
    "--solver sgd --refit --keep best": "--keep best chooses by a val that --refit trains on: give one of them",
    "--solver sgd --init uniform --init-scale 0.1": "--init-scale is of normal weights: leave out --init uniform",
    "--test train.npz": "--train, --val and --test must be different files",
    "--shots 5 --test test.npz other.npz": "--shots are scored on one --test, got 2",
    "--solver adam --momentum 0.9": "--momentum is for --solver momentum or nesterov or rmsprop, got adam",
    "--solver sgd --epochs 2 --steps 9": "--steps are for --epochs 0: give one of them, got 9",
    "--protocol clip-benchmark --steps 9": "--steps are for --epochs 0, 10 are those of --protocol clip-benchmark",
    "--shots 500": "--shots must be at most the examples of each class, ",
    "--solver ridge --certify": "--certify is for --solver lbfgs, got ridge",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_flags_that_do_not_fit_together_end_in_one_line(flags: str, files: Path) -> None:
    done = command.run(PROGRAM, "--train", "train.npz", *flags.split(), cwd=files)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {MISTAKES[flags]}")
    assert done.stderr.count("\n") == 1
    assert not (files / "runs").exists()


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_a_protocol_can_be_given_folds_shots_and_another_solver(name: str) -> None:
    """Flags that a protocol sets by itself contradict no other."""
    config = probe_config.Config(train=Path("a.npz"), **{"protocol": name} | protocols.PROTOCOLS[name])
    folds = dataclasses.replace(config, folds=3, shots=0, tries=1)
    for given in (config, dataclasses.replace(config, shots=5), dataclasses.replace(folds, solver="lbfgs")):
        probe_config.check(given)
    probe_config.check(dataclasses.replace(folds, keep="last"))
    probe_config.check(dataclasses.replace(config, solver="sgd"))


def test_top_5_of_five_classes_is_refused() -> None:
    splits = data.standard(data.from_arrays(np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 5))
    with pytest.raises(ValueError, match=r"^select must be another than top-5 for five classes or fewer, got 5$"):
        sweep.run(splits, Grid([0.1], [0.0]), steps=1, select="top-5")


SELECTED: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "top-5": lambda logits, y: top_k_accuracy_score(y, logits, k=5),
    "macro-f1": lambda logits, y: f1_score(y, logits.argmax(axis=1), average="macro"),
    "log-loss": lambda logits, y: log_loss(y, jax.nn.softmax(logits, axis=1)),
}


@pytest.mark.parametrize("select", SELECTED)
def test_cells_are_selected_by_any_metric(select: str, source: data.Source) -> None:
    """The best column is scikit-learn's metric of the best cell, and no other cell is better."""
    splits = data.standard(source)
    found = sweep.run(splits, Grid([1e-3, 1e-2, 1.0], [0.0, 1e-2]), steps=100, select=select)
    solved = probe.run(splits, [1.0, 1e-2, 1e-4], select=select)
    for result in (found, solved):
        column = result.table[result.column]
        logits = np.asarray(softmax.logits(result.params, softmax.append_ones(splits.val.X)))
        assert column[result.best] == pytest.approx(SELECTED[select](logits, splits.val.y), abs=1e-5)
        assert column[result.best] == (column.min() if select == "log-loss" else column.max())
        assert not result.within_one_se.any()


def test_cells_within_one_standard_error_by_paired_examples(source: data.Source) -> None:
    """McNemar's statistic of each cell and the best is at most 1; the simplest of them is the most regularised."""
    splits, grid = data.standard(source), Grid([1e-3, 1e-2, 0.5], [0.0, 1e-2, 0.5])
    found = sweep.run(splits, grid, steps=100)
    right = np.unpackbits(found.right, axis=1)[:, : len(splits.val)].astype(int)
    np.testing.assert_allclose(right.mean(axis=1), found.table["val_accuracy"])
    best, within = right[found.best], []
    for row in right:
        first, second = np.sum(best > row), np.sum(row > best)
        within.append(first - second <= np.sqrt(first + second))
    np.testing.assert_array_equal(found.within_one_se, within)
    search = functools.partial(sweep.run, steps=100)
    simple = crossval.one_se(search, found, splits)
    reg = found.table["reg"]
    assert reg[simple.best] == reg[within].max()
    assert simple.table["rank"][simple.best] >= 1
    alone = sweep.run(splits, grid.only(simple.best), steps=100)
    np.testing.assert_allclose(simple.params, alone.params, atol=1e-5)
    parts = np.array_split(np.arange(1500), 3)
    whole = data.standard(dataclasses.replace(source, train=np.arange(1500), val=np.arange(1500)))
    folds = data.standard_folds(source, parts)
    chosen = crossval.run(probe.search, Grid((), [10.0, 0.1, 1e-2, 1e-3], ()), folds, whole, choose="one-se").result
    assert chosen.best in np.flatnonzero(chosen.within_one_se)
    assert chosen.table["reg"][chosen.best] == chosen.table["reg"][chosen.within_one_se].max()
    assert (chosen.table["val_deviation"] > 0).all()


def test_every_protocol_has_flags_of_the_command() -> None:
    from jaxcls.cli.probe import Config

    assert set(protocols.PROTOCOLS) == set(protocols.Name.__args__)
    for flags in protocols.PROTOCOLS.values():
        Config(train="feats.npz", **flags)


def test_the_best_weights_of_all_evaluations_are_kept(source: data.Source) -> None:
    """By each cell alone; and a run that was stopped resumes with them to the same bits."""
    splits, grid = data.standard(source), Grid([3e-3, 0.1, 3.0, 10.0], [0.0, 1e-2], seed=[0, 1])
    run = functools.partial(sweep.run, splits, grid, steps=60, batch_size=100, chunk_steps=7)
    last, snapshots = run(), []

    def save(take: Callable[[], sweep.Snapshot]) -> None:
        taken = take()
        arrays = {name: np.array(getattr(taken, name)) for name in ("table", "losses", "val_accuracy", "right")}
        snapshots.append(taken._replace(**arrays))

    best = run(keep="best", save=save)
    assert best.history.step.tolist() == list(range(0, 60, 6))
    recorded = np.nanmax(best.history.val_accuracy, axis=1)
    seen = np.fmax(recorded, last.table["val_accuracy"])
    assert (recorded < seen).any()  # after the last step, which is not recorded
    assert (last.table["val_accuracy"] < seen).any()
    np.testing.assert_allclose(best.table["val_accuracy"], seen)
    np.testing.assert_array_equal(best.losses, last.losses)
    predicted = softmax.predict(best.params, softmax.append_ones(splits.val.X))
    assert np.mean(predicted == splits.val.y) == pytest.approx(seen.max())
    resumed = run(keep="best", resume=snapshots[len(snapshots) // 2])
    np.testing.assert_array_equal(resumed.params, best.params)
    np.testing.assert_array_equal(resumed.table, best.table)
    with pytest.raises(ValueError, match=r"^resume must be a snapshot of this very sweep"):
        run(history=True, resume=snapshots[1])
    folds = data.standard_folds(source, np.array_split(np.arange(300), 2))
    with pytest.raises(ValueError, match=r"^keep must be last for folds, which are scored once, got best$"):
        sweep.run(folds, Grid([0.1], [0.0], fold=[0, 1]), steps=1, keep="best")


def test_a_peak_is_the_best_of_the_cells_around_it(source: data.Source) -> None:
    """The table, the weights and the grid are of the values that were trained, in order."""
    splits, path = data.standard(source), np.logspace(1, -9, 97).tolist()
    found, whole = crossval.peak(probe.search, Grid((), path, ()), splits), probe.run(splits, path)
    assert len(found.table) <= 7 + 2 * 4
    assert list(found.grid.reg) == found.table["reg"].tolist() == sorted(found.grid.reg, reverse=True)
    k = path.index(found.grid.reg[found.best])
    assert {path[k - 1], path[k + 1]} <= set(found.grid.reg)
    assert found.table["val_accuracy"].max() >= whole.table["val_accuracy"].max() - 0.01
    predicted = softmax.predict(found.params, softmax.append_ones(splits.val.X))
    assert np.mean(predicted == splits.val.y) == pytest.approx(found.table["val_accuracy"][found.best])
    with pytest.raises(ValueError, match=r"^grid must have one axis with several values for a peak, got lr, reg$"):
        crossval.peak(probe.search, Grid([0.1, 1.0], [0.1, 1.0]), splits)


def test_tries_train_the_cell_that_is_best_on_average(source: data.Source) -> None:
    """The table is the mean of the tries; all of them are scored by the same cell, and told apart on all their val."""
    splits, path = data.standard(source), [10.0, 1e-2]
    tries = data.tries(splits, inputs.shots(splits, 4, 3, seed=0))
    result, outcomes = crossval.tries(probe.search, Grid((), path, ()), tries)
    few = [tries.split(fold) for fold in range(3)]
    alone = [probe.run(each, path).table["val_accuracy"] for each in few]
    np.testing.assert_allclose(result.table["val_accuracy"], np.mean(alone, axis=0))
    np.testing.assert_allclose(result.table["val_deviation"], np.std(alone, axis=0))
    assert result.best == 1
    for each, found in zip(few, outcomes, strict=True):
        np.testing.assert_array_equal(found.predicted, probe.run(each, path[1:]).test.predicted)
    assert np.bitwise_count(result.right).sum(axis=1) / (3 * len(few[0].val)) == pytest.approx(np.mean(alone, axis=0))


@pytest.mark.parametrize("protocol", ["standard", "l2"])
def test_tries_are_replicates_of_one_program(source: data.Source, protocol: str) -> None:
    """Each try is scored as it is alone, standardised by its own subset; resumed and streamed to the same bits."""
    splits, grid = data.PROTOCOLS[protocol](source), Grid([0.1, 1.0], [1e-3])
    drawn = inputs.shots(splits, 4, 3, seed=0)
    few, taken = data.tries(splits, drawn), []
    steps = {"steps": 60, "batch_size": 16, "keep": "best"}

    def search(data: data.Splits, cells: Grid, **options: object) -> SweepResult:
        return sweep.run(data, cells, **steps, **options)

    each = dataclasses.replace(grid, fold=range(3))
    found = search(few, each, save=lambda take: taken.append(copy.deepcopy(take())), chunk_steps=20)
    for fold, rows in enumerate(drawn):
        of_try = data.PROTOCOLS[protocol](dataclasses.replace(source, train=source.train[rows]))
        np.testing.assert_array_equal(few.split(fold).train.X, of_try.train.X)
        np.testing.assert_array_equal(few.split(fold).test.X, of_try.test.X)
        alone = search(of_try, grid)
        for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            np.testing.assert_allclose(found.table[name][fold::3], alone.table[name], rtol=1e-5)
    for again in (search(few, each, resume=taken[2], chunk_steps=20), search(few, each, stream=True, chunk_steps=20)):
        np.testing.assert_array_equal(again.table, found.table)
    result, outcomes = crossval.tries(search, grid, few)
    np.testing.assert_allclose(result.table["val_accuracy"], found.table["val_accuracy"].reshape(2, 3).mean(axis=1))
    assert len(outcomes) == 3
    assert result.unit_length == (protocol == "l2")
    assert (result.predict(source.X[source.test]) == np.array(source.class_names)[outcomes[0].predicted]).all()


def test_tries_take_val_from_another_array(source: data.Source) -> None:
    splits = data.standard(source)
    apart = dataclasses.replace(splits.val, raw=splits.val[:], rows=None)
    subsets = inputs.shots(splits, 3, 2, seed=0)
    one, other = (data.tries(each, subsets) for each in (splits, dataclasses.replace(splits, val=apart)))
    np.testing.assert_array_equal(one.examples.X, other.examples.X)
    np.testing.assert_array_equal(one.split(1).val.X, other.split(1).val.X)
    with pytest.raises(ValueError, match=r"^splits must have one mean and scale, those of train and val are others$"):
        data.tries(dataclasses.replace(splits, val=data.raw(source).val), subsets)


def test_tries_must_be_of_one_size(source: data.Source) -> None:
    with pytest.raises(ValueError, match=r"^subsets must be of one size, got \[2, 3\]$"):
        data.tries(data.raw(source), [np.arange(2), np.arange(3)])
