"""Published protocols by ``jaxcls probe``, beside the projects' own training as `torchref` and scikit-learn have it.

python benchmarks/protocols.py                      # accuracy on digits and speed; seven minutes
python benchmarks/protocols.py --data cifar10       # on the pixels; half an hour

Accuracy: the same rows for train, val and test. Where a project draws minibatches, its figures are of three seeds.
Seconds are of the whole command, with starting Python, compilation, pictures and page; of the others, of the training
and scoring alone, a seed, on one thread or on all, whichever is faster. Speed: made-up features, second calls in one
process, medians of three.
"""

import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from run import HERE, command, slug, write
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils._testing import ignore_warnings
from threadpoolctl import threadpool_limits

import torchref
from jaxcls import classifier, crossval, data, optimizers, probe, sweep
from jaxcls.artifacts import record
from jaxcls.cli.inputs import shots
from jaxcls.cli.protocols import PROTOCOLS
from jaxcls.grid import Grid

SEEDS, REPEATS = 3, 3
THREADS = (1, None)  # one, or all


@dataclass(frozen=True)
class Config:
    """The data and the protocols to run."""

    data: Literal["digits", "cifar10"] = "digits"
    """The digits of scikit-learn, or the pixels of CIFAR-10 divided by 255."""
    protocols: tuple[str, ...] = tuple(name for name in PROTOCOLS if name not in ("standard", "dinov3-linear"))
    """Names of protocols; none for the speed alone."""
    examples: int | None = None
    """So many of train and of val, the first ones; all if not given."""
    steps: int = 12_500
    """Of dinov2-linear and capi."""
    speed: bool = True
    """Time the training on made-up features, too."""


class Parts(NamedTuple):
    """Features and labels of train, val and test."""

    X: NDArray
    y: NDArray
    X_val: NDArray
    y_val: NDArray
    X_test: NDArray
    y_test: NDArray


Answer = tuple[str, list[float]]  # the choice, and accuracies on test


def main(config: Config) -> int:
    """Print a line for each protocol, and write the figures; return the exit code."""
    torch.set_num_threads(torch.get_num_threads())
    measured: dict[str, Any] = {**record.machine(), "versions": record.versions(), "config": vars(config)}
    print(f"{measured['device']}, {measured['processor']}\n")
    parts = load(config.data, config.examples)
    rows: dict[str, Any] = {}
    if config.protocols:
        print(f"{config.data}: {len(parts.y):,} train, {len(parts.y_val):,} val, {len(parts.y_test):,} test\n")
        print(f"{'protocol':20} {'jaxcls':>22} {'s':>6}   {'own code':>22} {'s':>6}")
    for name in config.protocols:
        rows[name] = beside(name, parts, config)
    if config.speed:
        measured["speed"] = {name: timed(name, *each) for name, each in speeds().items()}
    some = f"-{config.examples}" if config.examples else ""
    write(measured | {"protocols": rows}, HERE / "results" / f"protocols-{config.data}{some}-{slug()}.json")
    return 0


def load(name: str, most: int | None) -> Parts:
    """The parts of a data set, with at most so many examples in train and in val."""
    if name == "digits":
        source = data.load_digits()
    else:
        source = data.load_cifar10()
        train, val, test = np.split(np.arange(60_000), [40_000, 50_000])
        source = replace(source, train=train, val=val, test=test)
    X = np.asarray(source.X, np.float32) / (255 if name == "cifar10" else 1)
    rows = source.train[:most], source.val[:most], source.test
    return Parts(*(array[some] for some in rows for array in (X, source.y)))


def beside(name: str, parts: Parts, config: Config) -> dict[str, Any]:
    """A protocol by the command, and by the project's own code."""
    choice, accuracy, seconds = by_command(name, parts, config)
    started = time.perf_counter()
    theirs, accuracies = OWN[name](parts, config)
    took = (time.perf_counter() - started) / len(accuracies)
    spread = f" ({min(accuracies):.4f} to {max(accuracies):.4f})" if len(accuracies) > 1 else ""
    print(f"{name:20} {choice:>15} {accuracy:.4f} {seconds:6.1f}   {theirs:>15} {np.mean(accuracies):.4f} ", end="")
    print(f"{took:6.1f}{spread}", flush=True)
    return {"choice": choice, "accuracy": accuracy, "seconds": seconds, "own": [theirs, accuracies, took]}


def by_command(name: str, parts: Parts, config: Config) -> tuple[str, float, float]:
    """The choice, the accuracy on test and the seconds of ``jaxcls probe --protocol``."""
    with tempfile.TemporaryDirectory() as folder:
        given = []
        for role, X, y in (("train", *parts[:2]), ("val", *parts[2:4]), ("test", *parts[4:])):
            np.savez(Path(folder) / role, X=X, y=y)
            given += [f"--{role}", f"{role}.npz"]
        steps = ["--steps", str(config.steps)] if "steps" in PROTOCOLS[name] else []
        words = ["jaxcls", "probe", *given, "--protocol", name, *steps, "--out", "run", "--json"]
        started = time.perf_counter()
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise ValueError(done.stderr.strip().splitlines()[-1])
    found = json.loads(done.stdout)
    if "tries" in found:
        return "", found["tries"]["accuracy"]["mean"], seconds
    best = found["best"]
    if "C" in PROTOCOLS[name]:
        return f"C {1 / (2 * len(parts.y) * best['reg']):.3g}", best["test_accuracy"], seconds
    axes = [axis for axis in ("lr", "weight_decay") if axis in best and len(PROTOCOLS[name].get(axis, ())) > 1]
    scale = 256 / PROTOCOLS[name]["batch_size"] if "base_batch" in PROTOCOLS[name] else 1.0
    return (
        ", ".join(f"{best[axis] * (scale if axis == 'lr' else 1):.3g}" for axis in axes),
        best["test_accuracy"],
        seconds,
    )


def both(parts: Parts) -> tuple[NDArray, NDArray]:
    """Train and val."""
    return np.concatenate([parts.X, parts.X_val]), np.concatenate([parts.y, parts.y_val])


@ignore_warnings(category=ConvergenceWarning)
def logistic(
    parts: Parts, config: Config, *, values: Sequence[float], max_iter: int = 1000, tol: float = 1e-4
) -> Answer:
    """scikit-learn's L-BFGS at every C; refitted at the best on train and val."""
    fit = functools.partial(LogisticRegression, max_iter=max_iter, tol=tol)
    X, X_val, X_test = (each.astype(np.float64) for each in (parts.X, parts.X_val, parts.X_test))
    with threadpool_limits(faster_threads(lambda: fit(C=values[0]).fit(X, parts.y))):
        accuracies = [fit(C=C).fit(X, parts.y).score(X_val, parts.y_val) for C in values]
        best = values[int(np.argmax(accuracies))]
        X, y = both(parts)
        return f"C {best:.3g}", [float(fit(C=best).fit(X.astype(np.float64), y).score(X_test, parts.y_test))]


def faster_threads(work: Callable[[], object]) -> int | None:
    """One thread, or None for all, whichever is faster: of small products, those of all may take many times as long."""
    return min(THREADS, key=lambda threads: on_threads(work, threads))


def on_threads(work: Callable[[], object], threads: int | None) -> float:
    """The seconds of some work on so many threads."""
    with threadpool_limits(threads):
        started = time.perf_counter()
        work()
        return time.perf_counter() - started


def tensors(X: NDArray, y: NDArray) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels in torch."""
    return torch.from_numpy(np.ascontiguousarray(X, np.float32)), torch.from_numpy(y.astype(np.int64))


def accuracy(head: torch.nn.Linear, X: torch.Tensor, y: torch.Tensor) -> float:
    """The accuracy of a head."""
    with torch.no_grad():
        return float((head(X).argmax(1) == y).float().mean())


def epochs(num_examples: int, batch_size: int, count: int, seed: int) -> list[torch.Tensor]:
    """Minibatches of so many epochs, the last of each kept."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(num_examples, generator=generator) for _ in range(count)]
    return [batch for order in orders for batch in order.split(batch_size)]


def clip_benchmark(parts: Parts, config: Config) -> Answer:
    """19 trainings in a row, then one on train and val."""
    unit = [torch.nn.functional.normalize(torch.from_numpy(each)) for each in (parts.X, parts.X_val, parts.X_test)]
    y, y_val, y_test = (torch.from_numpy(each.astype(np.int64)) for each in (parts.y, parts.y_val, parts.y_test))
    choices, accuracies = [], []

    def trained(X: torch.Tensor, y: torch.Tensor, index: int, seed: int) -> torch.nn.Linear:
        torch.manual_seed(seed)
        decay = [torchref.probes.CLIP_BENCHMARK_DECAYS[index]]
        (head,), _ = torchref.clip_benchmark_heads(X, y, epochs(len(y), 512, 10, seed), weight_decays=decay)
        return head

    with threadpool_limits(faster_threads(lambda: trained(unit[0], y, 0, 0))):
        for seed in range(SEEDS):
            best, _ = torchref.clip_benchmark_search(
                lambda index: accuracy(trained(unit[0], y, index, seed), unit[1], y_val)  # noqa: B023
            )
            choices.append(torchref.probes.CLIP_BENCHMARK_DECAYS[best])
            refitted = trained(torch.cat(unit[:2]), torch.cat([y, y_val]), best, seed)
            accuracies.append(accuracy(refitted, unit[2], y_test))
    return f"{choices[0]:.3g}", accuracies


def heads(parts: Parts, config: Config, *, protocol: str) -> Answer:
    """All heads on shared minibatches; the best on val."""
    (X, y), (X_val, y_val), (X_test, y_test) = (tensors(*parts[k : k + 2]) for k in (0, 2, 4))
    size, choices, accuracies = min(PROTOCOLS[protocol]["batch_size"], len(y)), [], []

    def trained(steps: int, seed: int) -> list[torch.nn.Linear]:
        torch.manual_seed(seed)
        batches = torchref.epoch_batches(len(y), size, steps, seed)
        if protocol == "capi":
            warmup = min(PROTOCOLS[protocol]["warmup"], steps // 10)
            return torchref.capi_heads(X, y, batches, warmup=warmup)[0]
        return torchref.dinov2_linear_heads(X, y, batches)[0]

    threads = faster_threads(lambda: trained(50, 0))
    for seed in range(SEEDS):
        with threadpool_limits(threads):
            found = trained(config.steps, seed)
        best = int(np.argmax([accuracy(head, X_val, y_val) for head in found]))
        rates = PROTOCOLS[protocol]["lr"]
        decays = PROTOCOLS[protocol].get("weight_decay", ())
        choices.append(f"{rates[best // 3]:.3g}, {decays[best % 3]:.3g}" if decays else f"{rates[best]:.3g}")
        accuracies.append(accuracy(found[best], X_test, y_test))
    return choices[0], accuracies


def few(parts: Parts, protocol: str) -> list[data.Source]:
    """The subsets that the command draws."""
    train, names = np.arange(len(parts.y)), tuple(map(str, np.unique(parts.y)))
    source = data.Source("", parts.X, parts.y, train, train, train, names)
    drawn = shots(data.raw(source), PROTOCOLS[protocol]["shots"], PROTOCOLS[protocol]["tries"], seed=0)
    return [replace(source, train=rows) for rows in drawn]


@ignore_warnings(category=ConvergenceWarning)
def mteb(parts: Parts, config: Config) -> Answer:
    """scikit-learn on the same subsets."""
    subsets = [(each.X[each.train], each.y[each.train]) for each in few(parts, "mteb")]
    with threadpool_limits(faster_threads(lambda: LogisticRegression(max_iter=100).fit(*subsets[0]))):
        fits = [LogisticRegression(max_iter=100).fit(*each) for each in subsets]
        return "", [float(np.mean([fit.score(parts.X_test, parts.y_test) for fit in fits]))]


def big_vision(parts: Parts, config: Config) -> Answer:
    """The formula on the same subsets."""
    accuracies = []
    for each in few(parts, "big-vision-fewshot"):
        X, y = each.X[each.train].astype(np.float64), each.y[each.train]
        mean, scale = X.mean(axis=0), X.std(axis=0) + 1e-5
        A, B = (np.c_[(some - mean) / scale, np.full(len(some), 100.0)] for some in (X, parts.X_test))
        targets = 2.0 * (y[:, None] == np.unique(parts.y)) - 1
        dual = np.linalg.solve(A @ A.T + 1024 * np.eye(len(A)), targets)
        accuracies.append(np.mean((B @ (A.T @ dual)).argmax(axis=1) == parts.y_test))
    return "", [float(np.mean(accuracies))]


OWN: dict[str, Callable[[Parts, Config], Answer]] = {
    "dinov2-linear": functools.partial(heads, protocol="dinov2-linear"),
    "dinov2-logreg": functools.partial(logistic, values=PROTOCOLS["dinov2-logreg"]["C"], tol=1e-12),
    "clip": functools.partial(logistic, values=PROTOCOLS["clip"]["C"]),
    "clip-benchmark": clip_benchmark,
    "ssl-transfer": functools.partial(logistic, values=PROTOCOLS["ssl-transfer"]["C"], max_iter=100),
    "mteb": mteb,
    "capi": functools.partial(heads, protocol="capi"),
    "big-vision-fewshot": big_vision,
}


def made_up(num_examples: int, num_features: int, num_classes: int) -> data.Source:
    """Features of classes that overlap."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(num_examples) % num_classes)
    X = 0.3 * rng.normal(size=(num_classes, num_features))[y] + rng.normal(size=(num_examples, num_features))
    return data.from_arrays(X.astype(np.float32), y)


Speed = tuple[Callable[[], float], Callable[[], object]]  # the training of ours, which returns its seconds, and theirs


def speeds() -> dict[str, Speed]:
    """The trainings to be timed, by name."""
    found: dict[str, Speed] = {}
    for num_classes in (10, 100):
        splits = data.l2(made_up(14_629, 512, num_classes))  # 10,240 in train
        found[f"clip-benchmark, C {num_classes}"] = _clip_speed(splits)
    splits = data.raw(made_up(14_629, 512, 100))
    grid = Grid([4 * lr for lr in PROTOCOLS["dinov2-linear"]["lr"]], [0.0])
    momentum = optimizers.scheduled(optimizers.OPTIMIZERS["momentum"], optimizers.schedule("cosine", 100))
    X, y = tensors(splits.train.X, splits.train.y)
    batches = torchref.epoch_batches(len(y), 1024, 100, 0)
    found["dinov2-linear, C 100"] = (
        lambda: (
            sweep.run(splits, grid, steps=100, batch_size=1024, sampling="epochs", optimizer=momentum).timings.run_s
        ),
        lambda: torchref.dinov2_linear_heads(X, y, batches),
    )
    source = made_up(4000, 768, 20)
    whole = data.raw(source)
    tries = data.tries(whole, shots(whole, 8, 10, seed=0))
    each_try = [tries.split(fold) for fold in range(10)]
    one = Grid((), [1 / (2 * 160)], ())
    found["mteb, C 20, D 768"] = (
        lambda: crossval.tries(probe.search, one, tries)[0].timings.run_s,
        lambda: [LogisticRegression(max_iter=100).fit(each.train.X, each.train.y) for each in each_try],
    )
    return found


def _clip_speed(splits: data.Splits) -> Speed:
    steps = 10 * -(-len(splits.train) // 512)
    adamw = optimizers.scheduled(optimizers.OPTIMIZERS["adamw"], optimizers.schedule("cosine", steps))
    grid = Grid([0.1], [0.0], weight_decay=PROTOCOLS["clip-benchmark"]["weight_decay"])
    drawn = {"batch_size": 512, "sampling": "epochs", "last_batch": "kept"}
    ours = functools.partial(sweep.run, splits, grid, steps=steps, optimizer=adamw, **drawn)
    uniform = classifier.linear(init="uniform")
    (X, y), (X_val, y_val) = (tensors(each.X, each.y) for each in (splits.train, splits.val))

    def score(index: int) -> float:
        decay = [torchref.probes.CLIP_BENCHMARK_DECAYS[index]]
        (head,), _ = torchref.clip_benchmark_heads(X, y, epochs(len(y), 512, 10, 0), weight_decays=decay)
        return accuracy(head, X_val, y_val)

    return lambda: ours(classifier=uniform).timings.run_s, lambda: torchref.clip_benchmark_search(score)


def timed(name: str, ours: Callable[[], float], theirs: Callable[[], object]) -> dict[str, Any]:
    """Seconds of the training of ours and theirs, in turn; and of our first call as a whole."""
    started = time.perf_counter()
    ours()
    first, threads = time.perf_counter() - started, faster_threads(theirs)
    pairs = [(ours(), on_threads(theirs, threads)) for _ in range(REPEATS)]
    one, other = (statistics.median(each) for each in zip(*pairs, strict=True))
    print(
        f"{name:22} jaxcls {one:6.2f} s, first call {first:5.1f}; own code {other:6.2f} s, {other / one:.1f} x",
        flush=True,
    )
    return {"ours": one, "first": first, "theirs": other}


if __name__ == "__main__":
    sys.exit(command(main, Config, "\n\n".join(filter(None, (__doc__ or "").splitlines()))))
