"""Whole grids and points, and the same halved, beside the searches of scikit-learn and Optuna.

python benchmarks/halving.py                               # digits and made-up features; about ten minutes
python benchmarks/halving.py --workloads cs231n eecs498    # on CIFAR-10; half an hour

Each search runs in a process of its own, so that all of its compilation is counted; its seed is that of the points, of
the initial weights and of the minibatches. Seconds are of the search in that process, its data loaded.
"""

import functools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from run import HERE, command, slug

from jaxcls import data, sweep
from jaxcls.artifacts import record
from jaxcls.classifier import two_layer_net
from jaxcls.data import Splits
from jaxcls.grid import Cells, Grid, Points
from jaxcls.metrics import wilson

Name = Literal["digits", "probe", "cs231n", "eecs498"]
METHODS = ("whole", "halved", "optuna", "sklearn")


@dataclass(frozen=True)
class Config:
    """The searches to run."""

    workloads: tuple[Name, ...] = ("digits", "probe")
    """120 nets on digits; 96 linear probes of 100 classes; CS231n's grid of 100; 64 random nets on CIFAR-10."""
    seeds: int = 5
    """Runs of each."""
    peers: bool = True
    """Also scikit-learn's and Optuna's searches of the nets, with the first seed."""
    cifar10: Path | None = None
    """The folder of CIFAR-10."""
    only: tuple[str, str, int] | None = None
    """A workload, a method and a seed: run this alone, and print its figures."""


class Workload(NamedTuple):
    """Data, the cells of a seed, and the options of `jaxcls.sweep.run`."""

    splits: Splits
    cells: Callable[[int], Cells]
    options: dict[str, Any]


def main(config: Config) -> int:
    """Print a table, and write the figures; return the exit code."""
    if config.only:
        name, method, seed = config.only
        print(json.dumps(search(workload(name, config.cifar10), method, seed)))
        return 0
    measured: dict[str, Any] = {**record.machine(), "versions": record.versions(), "runs": []}
    path = HERE / "results" / f"halving-{'-'.join(config.workloads)}-{slug()}.json"
    print(f"{measured['device']}, {measured['processor']}\n")
    print(f"{'':9} {'search':8} {'seed':>4} {'s':>7} {'compile':>8} {'train':>7} {'val':>7} {'test':>7}")
    for name in config.workloads:
        for seed in range(config.seeds):
            peers = METHODS[2:] if config.peers and seed == 0 and name in ("digits", "eecs498") else ()
            for method in (*METHODS[:2], *peers):
                found = measured_alone(name, method, seed, config.cifar10)
                measured["runs"].append({"workload": name, "method": method, "seed": seed} | found)
                path.write_text(json.dumps(measured, indent=2) + "\n")
                compile_s, train_s = (f"{found[key]:.1f}" if key in found else "" for key in ("compile_s", "train_s"))
                print(f"{name:9} {method:8} {seed:4d} {found['s']:7.1f} {compile_s:>8} {train_s:>7}", end=" ")
                print(f"{found['val']:7.4f} {found['test']:7.4f}", flush=True)
        print(summary(name, [each for each in measured["runs"] if each["workload"] == name]), flush=True)
    return 0


def measured_alone(name: str, method: str, seed: int, cifar10: Path | None) -> dict[str, float]:
    """The figures of one search, in a process of its own."""
    folder = [] if cifar10 is None else ["--cifar10", str(cifar10)]
    alone = [sys.executable, __file__, "--only", name, method, str(seed), *folder]
    done = subprocess.run(alone, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def summary(name: str, runs: list[dict[str, Any]]) -> str:
    """Halved beside whole: the share of the time, and how far its choice is off on val, in medians and at worst."""
    whole, halved = ([each for each in runs if each["method"] == method] for method in METHODS[:2])
    share = [b["train_s"] / a["train_s"] for a, b in zip(whole, halved, strict=True)]
    total = [b["s"] / a["s"] for a, b in zip(whole, halved, strict=True)]
    behind = [a["val"] - b["val"] for a, b in zip(whole, halved, strict=True)]
    half_width = statistics.median(each["half_width"] for each in whole)
    return (
        f"{name}: halving takes {statistics.median(share):.2f} of the training, {statistics.median(total):.2f} of all "
        f"seconds; its choice is {statistics.median(behind):+.4f} behind on val, {max(behind):+.4f} at most "
        f"(95 % interval ±{half_width:.4f})\n"
    )


def workload(name: str, cifar10: Path | None) -> Workload:
    """The data and cells of this name."""
    nets = {"classifier": two_layer_net(init_scale=1e-2)}
    if name == "digits":
        axes = {"lr": [0.01, 0.03, 0.1, 0.3, 1.0], "reg": [0.0, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1]}
        return Workload(
            data.standard(data.load_digits()),
            lambda seed: Grid(**axes, hidden=[16, 32, 64, 128], seed=[seed]),
            nets | {"steps": 2000, "batch_size": 100},
        )
    if name == "probe":
        lr, reg = np.logspace(-3, 0, 8).tolist(), np.logspace(-6, -1, 12).tolist()
        return Workload(
            features(),
            lambda seed: Grid(lr, reg, seed=[seed]),
            {"steps": 2000, "batch_size": 256, "optimizer": "momentum"},
        )
    pictures = data.load_cifar10(cifar10)
    if name == "cs231n":
        lr, reg = np.linspace(1e-7, 5e-7, 10).tolist(), np.linspace(2.5e4, 5e4, 10).tolist()
        return Workload(
            data.cs231n(pictures), lambda seed: Grid(lr, reg, seed=[seed]), {"steps": 1500, "batch_size": 200}
        )
    return Workload(
        data.eecs498(pictures),
        lambda seed: replace(
            Points.random(64, seed=seed, lr=(1e-3, 0.3), reg=(1e-5, 1e-2), hidden=[32, 64, 128, 256]), seed=[seed]
        ),
        nets | {"steps": 1000, "batch_size": 500, "optimizer": "momentum"},
    )


def features() -> Splits:
    """Made-up features of 100 classes, D 512, four in five of which a linear classifier tells."""
    rng = np.random.default_rng(0)
    means, y = 0.2 * rng.standard_normal((100, 512)), rng.integers(100, size=20_000)
    X = means[y] + rng.standard_normal((len(y), 512))
    return data.standard(data.from_arrays(X.astype(np.float32), y))


def search(work: Workload, method: str, seed: int) -> dict[str, float]:
    """Seconds, and the accuracy of the choice on val and on test."""
    splits, cells = work.splits, work.cells(seed)
    began = time.perf_counter()
    if method in METHODS[:2]:
        found = sweep.run(splits, cells, halving=sweep.Halving() if method == "halved" else None, **work.options)
        seconds = time.perf_counter() - began
        assert found.best is not None
        val = float(found.table["val_accuracy"][found.best])
        low, high = wilson(round(val * len(splits.val)), len(splits.val))
        timings = found.timings
        train_s = timings.run_s + timings.evaluate_s
        more = {"compile_s": timings.compile_s, "train_s": train_s, "half_width": (high - low) / 2}
        return {"s": seconds, "val": val, "test": found.test_accuracy} | more
    val, test = {"optuna": by_optuna, "sklearn": by_sklearn}[method](splits, cells, work.options, seed)
    return {"s": time.perf_counter() - began, "val": val, "test": test}


def by_optuna(splits: Splits, cells: Cells, options: dict[str, Any], seed: int) -> tuple[float, float]:
    """Optuna over the same ranges, one trial per cell: a net in torch that the median pruner may end early."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y, X_val, y_val, X_test, y_test = tensors(splits)
    axes = cells.axes
    best: tuple[float, float] = (-1.0, math.nan)
    draw = torch.Generator().manual_seed(seed)

    def accuracy(W: list[torch.Tensor], X: torch.Tensor, y: torch.Tensor) -> float:
        hidden = (X @ W[0] + W[1]).relu_()
        return float(((hidden @ W[2] + W[3]).argmax(1) == y).double().mean())

    def objective(trial: optuna.Trial) -> float:
        nonlocal best
        lr, reg = (
            trial.suggest_float(axis, max(min(axes[axis]), 1e-5), max(axes[axis]), log=True) for axis in ("lr", "reg")
        )
        hidden = trial.suggest_categorical("hidden", list(axes["hidden"]))
        shapes = ((X.shape[1], hidden), (hidden,), (hidden, splits.num_classes), (splits.num_classes,))
        W = [1e-2 * torch.randn(shape, generator=draw) if len(shape) > 1 else torch.zeros(shape) for shape in shapes]
        for each in W:
            each.requires_grad_()
        optimizer = torch.optim.SGD(W, lr=lr, momentum=momentum(options))
        steps = options["steps"]
        for step in range(1, steps + 1):
            rows = torch.randint(len(y), (options["batch_size"],), generator=draw)
            scores = (X[rows] @ W[0] + W[1]).relu() @ W[2] + W[3]
            loss = torch.nn.functional.cross_entropy(scores, y[rows]) + reg * (
                W[0].square().sum() + W[2].square().sum()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % (steps // 10) == 0:
                with torch.no_grad():
                    val = accuracy(W, X_val, y_val)
                trial.report(val, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
        with torch.no_grad():
            if val > best[0]:
                best = val, accuracy(W, X_test, y_test)
        return val

    sampler, pruner = optuna.samplers.TPESampler(seed=seed), optuna.pruners.MedianPruner()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=len(cells))
    return best


def by_sklearn(splits: Splits, cells: Cells, options: dict[str, Any], seed: int) -> tuple[float, float]:
    """`HalvingRandomSearchCV` over the same ranges, in epochs of as many steps, on both cores."""
    from scipy.stats import loguniform
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV, PredefinedSplit
    from sklearn.neural_network import MLPClassifier
    from sklearn.utils._testing import ignore_warnings

    X, y, X_val, y_val, X_test, y_test = (each.numpy() for each in tensors(splits))
    axes, batch = cells.axes, options["batch_size"]
    epochs = options["steps"] * batch // len(y)
    net = MLPClassifier(
        solver="sgd",
        momentum=momentum(options),
        nesterovs_momentum=False,
        batch_size=batch,
        n_iter_no_change=10**6,
        random_state=seed,
    )
    ranges = {
        "learning_rate_init": loguniform(min(axes["lr"]), max(axes["lr"])),
        # Half its square is added to the sum over a minibatch.
        "alpha": loguniform(2 * 1e-5 * batch, 2 * max(axes["reg"]) * batch),
        "hidden_layer_sizes": [(hidden,) for hidden in axes["hidden"]],
    }
    both = PredefinedSplit(np.r_[np.full(len(y), -1), np.zeros(len(y_val), int)])
    find = HalvingRandomSearchCV(
        net,
        ranges,
        n_candidates=len(cells),
        factor=3,
        resource="max_iter",
        min_resources=max(epochs // 27, 1),
        max_resources=epochs,
        cv=both,
        refit=False,
        n_jobs=2,
        random_state=seed,
    )
    ignore_warnings(find.fit, category=ConvergenceWarning)(np.r_[X, X_val], np.r_[y, y_val])
    chosen = net.set_params(**find.best_params_ | {"max_iter": epochs})
    ignore_warnings(chosen.fit, category=ConvergenceWarning)(X, y)
    return chosen.score(X_val, y_val), chosen.score(X_test, y_test)


def momentum(options: dict[str, Any]) -> float:
    """Momentum of the optimizer in the options of a workload."""
    return 0.9 if options.get("optimizer") == "momentum" else 0.0


@functools.cache
def tensors(splits: Splits) -> tuple[torch.Tensor, ...]:
    """Prepared features and labels of train, val and test."""
    assert splits.test is not None
    found = []
    for split in (splits.train, splits.val, splits.test):
        found += [torch.tensor(np.asarray(split.X)), torch.tensor(split.y.astype(np.int64))]
    return tuple(found)


if __name__ == "__main__":
    sys.exit(command(main, Config, __doc__))
