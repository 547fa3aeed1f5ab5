"""Shapes that users bring, other than the courses': jaxcls against what they would run instead.

python benchmarks/shapes.py                            # all of them
python benchmarks/shapes.py --only "iris" "digits"     # those with a word in their name

Every peer does the same work: the same values or cells, folds and steps, at its defaults. Peers run on one thread and
on all, and the faster counts. The last column compares the results: for a path, by which fraction the objective of
jaxcls lies above that of the peer at worst; for a search over nets, its best mean accuracy over the folds less the
peer's; for steps of training, the largest difference of weights, relative to the largest weight. The last line names
the worst ratio.
"""

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from numpy.typing import NDArray
from peers import PEERS
from probe import TOLERANCES, made_up, objective, scikit_learn, timed
from run import HERE, command, slug, write
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from workloads import Workload, make

from jaxcls import logistic
from jaxcls.artifacts import record
from jaxcls.estimators import SoftmaxClassifier, TwoLayerClassifierCV

RUNS, MOST_RUNS = 3, 30  # many where they take a second together
TABLES = ("iris", "wine", "breast_cancer", "digits")
CS = np.logspace(-4, 4, 96)  # scikit-learn's, for Cs=96
FEW_CS = np.logspace(-2, 3, 6)
WORKLOADS = {  # cells, features, classes, batch size, examples, steps that are timed, hidden units
    "1 cell, D 769, C 10": Workload(1, 769, 10, 256, 4096, 200),
    "100 cells, D 129, C 2": Workload(100, 129, 2, 100, 4096, 400),
    "1,000 cells, D 65, C 10": Workload(1000, 65, 10, 100, 4096, 40),
    "100 cells, D 3,073, C 10": Workload(100, 3073, 10, 200, 4096, 20),
    "32 cells, D 769, C 1,000": Workload(32, 769, 1000, 512, 4096, 4),
    "100 nets, D 64, H 16, C 10": Workload(100, 64, 10, 200, 4096, 100, num_hidden=16),
    "4 nets, D 768, H 1,024, C 100": Workload(4, 768, 100, 256, 4096, 20, num_hidden=1024),
}
HEADS = {
    "32 heads, D 769, C 100": Workload(32, 769, 100, 512, 4096, 20),
    "97 heads, D 769, C 1,000": Workload(97, 769, 1000, 512, 4096, 2),
}
TRAINERS = {"torch loop": "torch by hand", "torch wide": "torch wide, in place", "vmap": "jax.jit(vmap), cells first"}
OF_HEADS = {
    "AdamW at once": "torch AdamW, heads on a shared batch",
    "AdamW in turn": "torch AdamW, one head after another",
}
TO_MANY_DIGITS, OURS_TO_MANY_DIGITS = 1e-8, 1e-12  # scikit-learn's tolerance is of the gradient, ours of the objective
LR, REG, STEPS, BATCH = (1e-3, 3e-3, 1e-2), (1e-5, 1e-4, 1e-3), 1000, 200


class Work(NamedTuple):
    """One piece of work: what jaxcls does, what the peer does, and how the results compare, computed from both."""

    peer: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    compare: Callable[[Any, Any], float]


@dataclass(frozen=True)
class Config:
    """The shapes to run."""

    only: tuple[str, ...] = ()
    """Words, of which the name must have one."""


def main(config: Config) -> int:
    """Print one line per shape, and write all figures; return the exit code."""
    for kind in (ConvergenceWarning, FutureWarning):
        warnings.simplefilter("ignore", kind)
    rows = []
    print(f"{'':42} {'first s':>8} {'jaxcls s':>9} {'peer s':>9} {'ratio':>7} {'apart':>9}")
    for name, make_work in works():
        if config.only and not any(word in name for word in config.only):
            continue
        work = make_work()
        first_s, _ = timed(work.ours)
        ours_s, ours = median(work.ours)
        peers = {threads: peer(work.theirs, threads) for threads in (1, None)}
        peer_s, theirs = min(peers.values(), key=lambda timing: timing[0])
        row = {"name": name, "peer": work.peer, "first_s": first_s, "ours_s": ours_s, "peer_s": peer_s}
        rows.append(row | {"ratio": peer_s / ours_s, "apart": work.compare(ours, theirs)})
        print(f"{name:42} {first_s:8.2f} {ours_s:9.3f} {peer_s:9.3f} {peer_s / ours_s:7.1f} ", end="")
        print(f"{rows[-1]['apart']:+9.0e}", flush=True)
    if not rows:
        raise ValueError(f"--only must hold a word of a name, got {' '.join(config.only)}")
    worst = min(rows, key=lambda row: row["ratio"])
    print(f"\nworst: {worst['name']}, {worst['ratio']:.1f} times {worst['peer']}")
    if not config.only:
        measured = {**record.machine(), "versions": record.versions(), "shapes": rows}
        write(measured, HERE / "results" / f"shapes-{slug()}.json")
    return 0


def works() -> Iterator[tuple[str, Callable[[], Work]]]:
    """All of them by name, the quick ones first."""
    for name in TABLES:
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        X = StandardScaler().fit_transform(X)
        yield f"fit {name}", functools.partial(one_fit, X, y)
        yield f"path, 5 folds, {name}", functools.partial(folds_of_path, X, y)
        yield f"path, 5 folds, {name}, tol 1e-8", functools.partial(folds_of_path, X, y, tol=TO_MANY_DIGITS)
        if name in ("iris", "digits"):
            yield f"net, 9 cells, 5 folds, {name}", functools.partial(search_of_nets, X, y)
    yield "fit 100,000 x 20, C 2", functools.partial(fit_by_sgd, 100_000, 20)
    for shape in ((2000, 2000, 2), (1000, 20_000, 2), (100_000, 20, 2), (20_000, 512, 10), (20_000, 512, 100)):
        name = "path, {:,} x {:,}, C {}".format(*shape)
        for short, (peer, solve) in PATHS.items():
            yield f"{name}, {short}", functools.partial(path, shape, peer, solve)
    for workloads, trainers, ours in ((WORKLOADS, TRAINERS, "jaxcls"), (HEADS, OF_HEADS, "jaxcls, AdamW")):
        for name, workload in workloads.items():
            for short, peer in trainers.items():
                yield f"{name}, {short}", functools.partial(steps, workload, peer, ours)


def steps(workload: Workload, peer: str, ours: str) -> Work:
    """Steps of training on the same minibatches, from the same weights."""
    problem, cells = make(workload), range(workload.cells)
    rows = np.random.default_rng(1).integers(0, workload.num_examples, (workload.steps, workload.batch_size))
    trainers = [PEERS[each](problem, cells) for each in (ours, peer)]

    def apart(*_: object) -> float:
        few, found = rows[:3], []
        for each in (ours, peer):
            trainer = PEERS[each](problem, cells)
            trainer.run(few)
            found.append([array for cell in trainer.params() for array in cell])
        size = max(np.abs(array).max() for array in found[0])
        return float(max(np.abs(a - b).max() for a, b in zip(*found, strict=True)) / size)

    return Work(peer, *(functools.partial(trainer.run, rows) for trainer in trainers), apart)


def one_fit(X: NDArray, y: NDArray) -> Work:
    """A single model on a shape that was seen before."""
    reg = 1e-3
    C = counterpart(y, reg)
    loss = functools.partial(loss_of, X, y, reg)
    return Work(
        "LogisticRegression",
        lambda: SoftmaxClassifier(reg).fit(X, y),
        lambda: LogisticRegression(C=C, max_iter=1000).fit(X, y),
        lambda ours, theirs: loss(ours.coef_, ours.intercept_) / loss(theirs.coef_, theirs.intercept_) - 1,
    )


def fit_by_sgd(examples: int, features: int) -> Work:
    """A single model of two classes, where the peer takes steps on one example after another."""
    X, y = made_up(examples, features, 2)
    reg = 1e-3  # scikit-learn's alpha: it has one column of weights, and halves the penalty
    loss = functools.partial(loss_of, X, y, reg)
    return Work(
        "SGDClassifier",
        lambda: SoftmaxClassifier(reg).fit(X, y),
        lambda: SGDClassifier(loss="log_loss", alpha=reg, random_state=0).fit(X, y),
        lambda ours, theirs: loss(ours.coef_, ours.intercept_) / loss(theirs.coef_, theirs.intercept_) - 1,
    )


def folds_of_path(X: NDArray, y: NDArray, tol: float | None = None) -> Work:
    """96 values on every fold; for many digits, if scikit-learn is given a tolerance."""
    folds = list(StratifiedKFold(5).split(X, y))
    weights = np.stack([np.bincount(rows, minlength=len(y)) for rows, _ in folds], axis=1)
    rows = folds[0][0]
    reg = counterpart(y[rows], CS)

    def ours() -> Any:
        with jax.enable_x64(True):
            return logistic.path(X, y, reg, weights=weights, tol=tol and OURS_TO_MANY_DIGITS).W[..., 0]

    def above(W: NDArray, theirs: Any) -> float:
        coefficients = np.asarray(theirs.coefs_paths_[0]).reshape(len(CS), -1, X.shape[1] + 1)
        return worst_above(X[rows], y[rows], reg, W, coefficients.transpose(2, 1, 0))

    options = {"max_iter": 10_000 if tol else 1000, "tol": tol or TOLERANCES[0]}
    model = LogisticRegressionCV(Cs=CS, cv=folds, use_legacy_attributes=False, scoring="accuracy", **options)
    return Work("LogisticRegressionCV", ours, lambda: model.fit(X, y), above)


def path(shape: tuple[int, int, int], peer: str, solve: Callable[..., list[NDArray]]) -> Work:
    """Six values, from the largest penalty, in float32."""
    X, y = made_up(*shape)
    X, reg = X.astype(np.float32), counterpart(y, FEW_CS)
    above = functools.partial(worst_above, X.astype(np.float64), y, reg)
    return Work(
        peer,
        lambda: logistic.path(X, y, reg).W,
        lambda: solve(X, y),
        lambda ours, theirs: above(ours, np.stack(theirs, axis=-1)),
    )


def torch_lbfgs(X: NDArray, y: NDArray) -> list[NDArray]:
    """Weights for every value, the bias last, by ``torch.optim.LBFGS``, each warm-started from the last."""
    X_t, y_t = torch.as_tensor(X), torch.as_tensor(y)
    W, b = (torch.zeros(*shape, requires_grad=True) for shape in ((X.shape[1], y.max() + 1), (y.max() + 1,)))
    found = []
    for reg in counterpart(y, FEW_CS):
        optimizer = torch.optim.LBFGS([W, b], max_iter=1000, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()  # noqa: B023
            loss = torch.nn.functional.cross_entropy(X_t @ W + b, y_t) + reg * (W * W).sum()  # noqa: B023
            loss.backward()
            return loss

        optimizer.step(closure)
        found.append(np.vstack([W.detach().numpy(), b.detach().numpy()]))
    return found


PATHS = {
    "sklearn": ("LogisticRegression", lambda X, y: scikit_learn(X, y, FEW_CS, TOLERANCES[0])),
    "torch": ("torch.optim.LBFGS", torch_lbfgs),
}


def search_of_nets(X: NDArray, y: NDArray) -> Work:
    """A grid of nets on every fold, and the best on all."""
    in_fold = 4 * len(y) // 5
    batch = min(BATCH, in_fold)
    epochs = STEPS // -(-in_fold // batch)
    grid = {"learning_rate_init": LR, "alpha": REG}
    net = MLPClassifier(batch_size=batch, max_iter=epochs, tol=0, n_iter_no_change=epochs)
    return Work(
        "GridSearchCV(MLPClassifier)",
        lambda: TwoLayerClassifierCV(lr=LR, reg=REG, steps=STEPS, batch_size=batch, random_state=0).fit(X, y),
        lambda: GridSearchCV(net, grid, cv=5).fit(X, y),
        lambda ours, theirs: ours.best_score_ - theirs.best_score_,
    )


def counterpart(y: NDArray, value: Any) -> Any:
    """Our ``reg`` for scikit-learn's ``C``, or its for ours; it has one column of weights for two classes."""
    return (1 if y.max() > 1 else 2) / (2 * len(y) * value)


def worst_above(X: NDArray, y: NDArray, reg: NDArray, ours: NDArray, theirs: NDArray) -> float:
    """Largest fraction by which the first objective is above the second, for weights ``[D, C, K]``."""
    pairs = [[loss_of(X, y, each, W[:-1, :, k].T, W[-1, :, k]) for k, each in enumerate(reg)] for W in (ours, theirs)]
    return float((np.array(pairs[0]) / np.array(pairs[1]) - 1).max())


def loss_of(X: NDArray, y: NDArray, reg: float, coefficients: NDArray, intercept: NDArray) -> float:
    """The objective of scikit-learn's coefficients; one column for two classes is two of opposite sign."""
    W = np.vstack([coefficients.T, intercept]).astype(np.float64)
    return objective(X, y, reg, np.hstack([-W, W]) / 2 if W.shape[1] == 1 else W)


def peer(work: Callable[[], Any], threads: int | None) -> tuple[float, Any]:
    """Median time of a peer on so many threads."""
    with threadpool_limits(threads):
        return median(work)


def median(work: Callable[[], Any]) -> tuple[float, Any]:
    """Median time and a result; of one run alone where that takes more than 20 seconds."""
    seconds, result = timed(work)
    more = 0 if seconds > 20 else np.clip(int(1 / seconds), RUNS, MOST_RUNS) - 1
    return float(np.median([seconds, *(timed(work)[0] for _ in range(more))])), result


if __name__ == "__main__":
    sys.exit(command(main, Config, __doc__))
