"""A path of regularisation values solved to convergence: `jaxcls.logistic` against warm-started scikit-learn.

python benchmarks/probe.py                    # CLIP's protocol: 20,000 examples, 512 features, 96 values; 21 minutes
python benchmarks/probe.py --values 24        # a quarter of them

Both use float64, largest penalty first. scikit-learn warm-starts each value from the last, at the given tolerances. The
program prints how far its objective lies above the certified optimum, as a fraction.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro
from numpy.typing import NDArray
from run import HERE, slug, write
from sklearn.linear_model import LogisticRegression

from jaxcls import logistic
from jaxcls.artifacts import record

MOST_ROTATED = 2000  # features together, or to make the problem takes longer than to solve it
TOLERANCES = (1e-4, 1e-7)  # scikit-learn's default, and one at which the objectives agree


def main(examples: int = 20_000, features: int = 512, classes: int = 10, values: int = 96) -> int:
    """Time both on the same synthetic features; return the exit code.

    Args:
      examples: N.
      features: D; correlated, with a spectrum that falls like k to the power -3/2.
      classes: C; 5 % of the labels are wrong, so that the classes are not separable.
      values: number of regularisation values; like CLIP's, C from 1e-6 to 1e6.
    """
    jax.config.update("jax_enable_x64", True)
    X, y = made_up(examples, features, classes)
    C = np.logspace(-6, 6, values)
    reg = 1 / (2 * examples * C)
    measured: dict[str, Any] = {
        **record.machine(),
        "versions": record.versions(),
        "problem": {"examples": examples, "features": features, "classes": classes, "values": values},
    }
    seconds, optima = {}, {}
    for name, certify in (("jaxcls", False), ("jaxcls, certified", True)):
        path = functools.partial(logistic.path, X, y, reg, certify=certify)
        first_s, _ = timed(path)
        times, found = zip(*(timed(path) for _ in range(3)), strict=True)
        seconds[name], optima[name] = float(np.median(times)), found[0]
        compile_s, converged = first_s - seconds[name], int(found[0].converged.sum())
        gap = float((found[0].gap / found[0].loss).max())
        figures = {"seconds": seconds[name], "runs_s": times, "compile_s": compile_s}
        measured[name] = figures | {"converged": converged, "gap": gap}
        print(f"{name:26} {seconds[name]:8.1f} s   {converged} of {values} converged, ", end="")
        print(f"gap {gap:.0e} of the loss; compiling {compile_s:.1f} s")
    ours_s, optimum = seconds["jaxcls"], optima["jaxcls, certified"]
    above = float((optima["jaxcls"].loss / optimum.loss - 1).max())
    measured["jaxcls"]["above"] = above
    print(f"jaxcls is at most {above:+.0e} above the certified optima")
    for tol in TOLERANCES:
        theirs_s, W = timed(lambda: scikit_learn(X, y, C, tol))  # noqa: B023
        above = np.array([objective(X, y, r, w) for r, w in zip(reg, W, strict=True)]) / optimum.loss - 1
        apart = max(float(np.abs(w[:-1] - optimum.W[:-1, :, k]).max()) for k, w in enumerate(W))
        name = f"scikit-learn, tol {tol:.0e}"
        measured[name] = {"seconds": theirs_s, "above": above.tolist(), "coefficients_apart": apart}
        print(f"{name:26} {theirs_s:8.1f} s   {theirs_s / ours_s:5.1f} times; its objective is ", end="")
        print(f"{above.min():+.0e} to {above.max():+.0e} above, its coefficients {apart:.0e} off")
    write(measured, HERE / "results" / f"probe-{slug()}.json")
    return 0


def made_up(examples: int, features: int, classes: int) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Synthetic features like those of a network: correlated, with a few strong directions; standardised."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, examples)
    means = 0.15 * rng.standard_normal((classes, features))
    spectrum = np.arange(1, features + 1) ** -0.75
    X = (rng.standard_normal((examples, features)) + means[y]) * spectrum
    num_blocks = -(-features // MOST_ROTATED)
    for some in (slice(k, None, num_blocks) for k in range(num_blocks)):
        size = X[:, some].shape[1]
        X[:, some] = X[:, some] @ np.linalg.qr(rng.standard_normal((size, size)))[0]
    wrong = rng.random(examples) < 0.05
    return (X - X.mean(axis=0)) / X.std(axis=0), np.where(wrong, rng.integers(0, classes, examples), y)


def scikit_learn(X: NDArray, y: NDArray, C: NDArray, tol: float) -> list[NDArray]:
    """Weights of scikit-learn for every value of C, the bias last."""
    model = LogisticRegression(tol=tol, max_iter=100_000, warm_start=True)
    found = []
    for each in C:
        model.set_params(C=each).fit(X, y)
        found.append(np.vstack([model.coef_.T, model.intercept_]))
    return found


def objective(X: NDArray, y: NDArray, reg: float, W: NDArray) -> float:
    """Mean cross-entropy plus the penalty, which excludes the bias."""
    s = X @ W[:-1] + W[-1]
    s -= s.max(axis=1, keepdims=True)
    data_loss = np.mean(np.log(np.exp(s).sum(axis=1)) - s[np.arange(len(y)), y])
    return float(data_loss + reg * np.sum(W[:-1] ** 2))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Call ``work``; return the seconds and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description="\n\n".join(filter(None, __doc__.splitlines()))))
