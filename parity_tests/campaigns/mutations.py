"""Put small mistakes into the code, one at a time: the default suite has to catch each.

python -m parity_tests.campaigns.mutations                  # all of them, an hour or so
python -m parity_tests.campaigns.mutations --only softmax   # those of one file
python -m parity_tests.campaigns.mutations --likely         # the likeliest files of tests alone

Each is made in a copy of the repository, where pytest runs the likeliest files, and then all, up to the first failure.
What one copy has compiled, the next need not. A survivor that is not known is a gap in the tests.
"""

import argparse
import concurrent.futures
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
UNTRACKED = shutil.ignore_patterns(".git", ".*_cache", "__pycache__", "runs", "shared", "dist")


class Mutation(NamedTuple):
    """A mistake: what stands once in a file of jaxcls, and what is put in its place."""

    file: str
    kind: str
    old: str
    new: str


MUTATIONS = [
    Mutation("losses", "max", "jnp.max(s, axis=-2", "jnp.min(s, axis=-2"),
    Mutation("losses", "digits", "jnp.log1p(others - (1 - e_label))", "jnp.log(others + e_label)"),
    Mutation("losses", "check", 's, label, axis=-2, mode="fill"', 's, label, axis=-2, mode="clip"'),
    Mutation("losses", "factor", "numerator / (total * n)", "numerator / total"),
    Mutation("losses", "sign", "jnp.where(is_label, -others, e)", "jnp.where(is_label, others, e)"),
    Mutation(
        "losses",
        "limit",
        "jnp.minimum(jnp.sum(losses, axis=(0, 1)), jnp.finfo(s.dtype).max)",
        "jnp.sum(losses, axis=(0, 1))",
    ),
    Mutation("losses", "comparison", "violated = jnp.sign(losses)", "violated = (losses >= 0).astype(losses.dtype)"),
    Mutation("losses", "sign", "violated - is_label", "violated + is_label"),
    Mutation("losses", "check", "jnp.where(y < 0, num_classes, y)", "y"),
    Mutation("losses", "nan", "jnp.where(jnp.isinf(n), 0, losses)", "losses"),
    Mutation("losses", "chain", "g * input_grad(", "input_grad("),
    Mutation("softmax", "factor", "dlogits, like=W) + 2 * reg", "dlogits, like=W) + reg"),
    Mutation("softmax", "sign", "return dlogits @ W.T", "return -dlogits @ W.T"),
    Mutation("softmax", "sign", "(p - (j == y[i]))", "(p + (j == y[i]))"),
    Mutation("softmax", "check", " or W.shape[2:] != reg.shape:", ":"),
    Mutation("softmax", "order", "[X, jnp.ones((X.shape[0], 1), X.dtype)]", "[jnp.ones((X.shape[0], 1), X.dtype), X]"),
    Mutation("two_layer", "comparison", "dz = jnp.where(z > 0,", "dz = jnp.where(z >= 0,"),
    Mutation("two_layer", "penalty", "b1=jnp.sum(dz, axis=0)", "b1=jnp.sum(dz, axis=0) + 2 * reg[None] * b1"),
    Mutation("two_layer", "factor", "dlogits, like=W2) + 2 * reg", "dlogits, like=W2) + reg"),
    Mutation("two_layer", "relu", "h = jnp.maximum(z, 0)\n    scores = einsum", "h = z\n    scores = einsum"),
    Mutation(
        "solver/newton", "factor", "_dot(_curvature(problem, reg) / 2 * A, A)", "_dot(_curvature(problem, reg) * A, A)"
    ),
    Mutation("solver/lbfgs", "factor", "penalty * A, A) / 2", "penalty * A, A)"),
    Mutation("solver/lbfgs", "order", "jnp.repeat(reg, num_weightings)", "jnp.tile(reg, num_weightings)"),
    Mutation("solver/lbfgs", "weights", "jnp.concatenate([w_b] *", "jnp.concatenate([w_b[:1]] * len(w_b) *"),
    Mutation("solver/lbfgs", "sign", "where &= product > jnp", "where &= product < jnp"),
    Mutation("solver/eigenbasis", "factor", "W = W / size", "W = W * size"),
    Mutation("solver/eigenbasis", "sample", "max(PER_FEATURE * num_features, SAMPLE)", "PER_FEATURE * num_features"),
    Mutation("solver/newton", "check", "W, loss, gap + added, gradient", "W, loss, gap, gradient"),
    Mutation("solver/arguments", "overflow", "shares = shares / shares.max(axis=0)", "shares = np.float32(shares)"),
    Mutation("solver/newton", "power", "reg[some] / float(basis.size) ** 2", "reg[some] / float(basis.size)"),
    Mutation("logistic", "order", "np.argsort(-values", "np.argsort(values"),
    Mutation("solver/newton", "factor", "(4 * reg), 0)", "(8 * reg), 0)"),
    Mutation(
        "solver/newton", "mean", "W = W.at[-1].set((exact[-1] - _along(basis.mean, W))", "W = W.at[-1].set((exact[-1])"
    ),
    Mutation("grid", "bound", "default=0) >= 2**32", "default=0) > 2**32"),
    Mutation("grid", "bound", "lowest <= value < math.inf", "lowest <= value <= math.inf"),
    Mutation("grid", "bound", 'lowest = 1 if name == "hidden" else 0', "lowest = 0"),
    Mutation("grid", "check", "values.count(value) > 1", "values.count(value) > 2"),
    Mutation("grid", "index", "np.tile(seed.ravel(), len(self.reg))", "np.repeat(seed.ravel(), len(self.reg))"),
    Mutation("grid", "scale", "low - 0.5, high + 0.5", "low, high"),
    Mutation("grid", "index", "else values[-2]", "else values[0]"),
    Mutation("optimizers", "rounding", "decay ** -(-count // steps_per_epoch)", "decay ** (count // steps_per_epoch)"),
    Mutation("train", "factor", "np.repeat([1 / of_set, 0.0]", "np.repeat([1 / size, 0.0]"),
    Mutation("train", "mask", "counted = (share > 0)", "counted = (share >= 0)"),
    Mutation("engine/program", "mask", "share > 0]", "share >= 0]"),
    Mutation("train", "check", "return jnp.where(jnp.isfinite(loss), lr, 0)", "return lr"),
    Mutation("optimizers", "offset", "max(num_examples // batch_size, 1)", "num_examples // batch_size + 1"),
    Mutation("classifier", "mean", "of_example / of_example.size", "of_example / jnp.sum(of_example)"),
    Mutation("classifier", "check", "if not 0 <= scale < math.inf:", "if scale < 0:"),
    Mutation("classifier", "vmap", "return _stacked(loss_and_grad)", "return loss_and_grad"),
    Mutation("numerics/stack", "check", "and not of_X and not of_y", "and not of_y"),
    Mutation("numerics/checks", "overflow", "host = np.clip(host, np.iinfo(narrow).min, np.iinfo(narrow).max)", "pass"),
    Mutation("numerics/checks", "bound", ">= num_folds > 0", "> num_folds > 0"),
    Mutation("data/splits", "comparison", "numbers >= sum(self.parts[:fold])", "numbers > sum(self.parts[:fold])"),
    Mutation("engine/evaluation", "penalty", "stack.val_part[:, None] != part", "np.array([True])"),
    Mutation(
        "engine/cells",
        "share",
        "np.where(is_val, 0, np.asarray(problem.parts)",
        "np.where(is_val, 1, np.asarray(problem.parts)",
    ),
    Mutation(
        "engine/cells",
        "scale",
        "standardised(X, examples.mean[which], examples.scale[which])",
        "X - examples.mean[which][None]",
    ),
    Mutation("engine/cells", "fold", "fold if len(examples.mean) > 1 else 0", "0"),
    Mutation(
        "engine/feed",
        "order",
        "put(self.on, place.reshape(rows.shape)",
        "put(self.on, np.sort(place).reshape(rows.shape)",
    ),
    Mutation("engine/feed", "ahead", "present, following = following, reader", "present, following = None, reader"),
    Mutation("engine/cells", "zeros", "for size in (1, 1000):", "for size in (1,):"),
    Mutation("sampling", "stream", "steps.start * words // 4", "steps.start * words"),
    Mutation("sampling", "epoch", "(seed, number)", "(seed, 0)"),
    Mutation("sampling", "last", "epoch * epoch_size + step", "epoch * num_examples + step"),
    Mutation("sampling", "walk", "outside[found[outside] >= length]", "outside[found[outside] > length]"),
    Mutation("sampling", "shift", "return (found + shift) % length", "return found % length"),
    Mutation("engine/cells", "width", "num_features + -num_features %", "num_features + 0 * -num_features %"),
    Mutation("engine/blocks", "cost", "for size in group) * group[-1]", "for size in group) * group[0]"),
    Mutation("engine/planning", "axis", "hidden[rows[0]], size)]", "hidden[rows[0]], size[:1])]"),
    Mutation("engine/schedule", "offset", "self.recorded + 1, self.rungs", "self.recorded, self.rungs"),
    Mutation("engine/schedule", "last", "epochs, epochs - 1]", "epochs]"),
    Mutation("engine/schedule", "comparison", "chunk.start >= step", "chunk.start > step"),
    Mutation("engine/progress", "offset", "schedule.recorded >= diverged_at - 1", "schedule.recorded >= diverged_at"),
    Mutation(
        "engine/snapshot",
        "check",
        "same = same and (resume.fingerprint, resume.halving) == (begin.fingerprint, begin.halving)",
        "pass",
    ),
    Mutation("metrics", "present", "num_examples, 1), num_examples > 0)", "num_examples, 1), num_examples >= 0)"),
    Mutation("metrics", "ties", "(classes < label)", "(classes > label)"),
    Mutation("metrics", "bins", "np.arange(1, bins) / bins", "np.arange(1, bins) / (bins + 1)"),
    Mutation("ridge", "factor", "dlogits = 2 * error / n", "dlogits = error / n"),
    Mutation("losses", "smoothing", "jnp.where(is_label, 1, 0) - jnp", "jnp.where(is_label, 1, 0) + 0 * jnp"),
    Mutation("optimizers", "bias", "W.at[bias_row].set(0)", "W"),
    Mutation("optimizers", "warm-up", "count * (1.0 / warmup)", "(count + 1) * (1.0 / warmup)"),
    Mutation("train", "top-5", "metrics.rank(logits, y) < 5", "metrics.rank(logits, y) <= 5"),
    Mutation("data/unit", "norm", "np.maximum(norms, SHORTEST)", "np.maximum(norms**2, SHORTEST)"),
    Mutation("crossval", "cell", "grid.only(whole.best)", "grid.only(0)"),
    Mutation("crossval", "halving", "functools.partial(search, halving=None)", "search"),
    Mutation("data/splits", "subset", "self.parts[0] * (self.num_folds if part else fold)", "self.parts[0] * fold"),
    Mutation("solver/lbfgs", "start", "(_losses(solution, length) > before * (1 + max(tol, SLACK))).any()", "False"),
    Mutation("engine/program", "index", "np.searchsorted([sizes[1]", "np.searchsorted([sizes[1] + 1"),
    Mutation("sweep", "block", "programs[stack.group] for", "programs[block[0].group] for"),
    Mutation("engine/plan", "more than fits", "memory.data + of_device <= self.memory", "memory.data <= self.memory"),
    Mutation("engine/plan", "other minibatches", "all(each == drawn[0] for each in drawn) and", ""),
    Mutation("engine/progress", "first stack", "state[each * k : each * (k + 1)]", "state[:each]"),
    Mutation("engine/evaluation", "first stack", "params, regs[k], inputs", "params, regs[0], inputs"),
    Mutation("engine/training", "stale scores", "each.on_val = None\n", "pass\n"),
    Mutation("engine/halving", "comparison", "(rank <= number)", "(rank < number)"),
    Mutation("engine/halving", "mean", ".mean(axis=1)", ".max(axis=1)"),
    Mutation("engine/halving", "factor", "(found[-1] - count) * rung", "found[-1] * rung"),
    Mutation("engine/progress", "comparison", "self.waited >= (", "self.waited > ("),
    Mutation("engine/progress", "axis", "np.where(better, 0, self.waited + 1)", "(self.waited + 1)"),
    Mutation("engine/program", "index", "= source[replicate[of], place[of]]", "= source[0, place[of]]"),
    Mutation("train", "offset", "(10.0 + steps)", "(9.0 + steps)"),
    Mutation("data/mirror", "axis", "splits.pixels[:, ::-1]", "splits.pixels[::-1]"),
    Mutation("data/mirror", "offset", "len(train.raw) + np.arange(count)", "np.arange(count)"),
    Mutation("data/source", "share", "round(fraction * len(y))", "round(2 * fraction * len(y))"),
    Mutation("data/labels", "order", "np.searchsorted(values, y) for y", "np.searchsorted(values, y)[::-1] for y"),
    Mutation("table", "sign", "loss[scored], -accuracy", "-loss[scored], -accuracy"),
    Mutation("table", "rounding", "np.round(accuracy, 12)", "np.asarray(accuracy)"),
    Mutation("table", "order", "np.where(rank > 0, rank, len(rank) + 1)", "rank"),
    Mutation(
        "artifacts/checkpoint",
        "check",
        'if not np.array_equal(arrays.pop("sha256"), _digest(arrays, text)):',
        'if arrays.pop("sha256") is None:',
    ),
    Mutation("numerics/digest", "text", "hashlib.sha256(text.encode())", "hashlib.sha256()"),
    Mutation("data/splits", "bound", "y >= num_classes)", "y > num_classes)"),
    Mutation("data/split", "digits", 'dtype=np.float64, casting="unsafe"', 'dtype=np.float32, casting="unsafe"'),
    Mutation("data/splits", "mean", "np.divide(len(y), present * count", "np.divide(len(y), num_classes * count"),
    Mutation("data/splits", "scale", "(mean - self.mean) / self.scale, scale / self.scale", "mean - self.mean, scale"),
    Mutation("data/split", "digest", "np.uint8), self.y, *rest]", "np.uint8), *rest]"),
    Mutation("data/moments", "rounding", "np.finfo(float).eps * np.abs(self.offset), scale, 1.0)", "0, scale, 1.0)"),
    Mutation("data/moments", "merge", "difference**2 * (count * ", "difference**2 * (0 * "),
    Mutation("data/moments", "origin", "        values -= origin\n", ""),
    Mutation("data/rows", "gap", "[rows[first:stop] - low]", "[: stop - first]"),
    Mutation("data/rows", "piece", "far | other | long", "far | long"),
    Mutation("data/rows", "changed", "if now != self.seen:", "if False:"),
    Mutation("data/protocols", "rows", "_scan(source, [train])", "_scan(source, [np.arange(50_000)])"),
    Mutation("data/protocols", "rows", "_scan(source, [np.arange(50_000)])", "_scan(source, [np.arange(40_000)])"),
    Mutation("data/protocols", "check", "if len(np.unique(rows)) < len(rows):", "if len(np.unique(rows)) < 0:"),
    Mutation("data/files", "check", "if info.file_size > memory.host():", "if info.file_size < 0:"),
    Mutation("data/files", "checksum", "while file.read(2**20):", "while False:"),
    Mutation("data/files", "member", "* dtype.itemsize) != info.file_size:", "* dtype.itemsize) < 0:"),
    Mutation("crossval", "first", "np.where(first < never, first, -1)", "first"),
    Mutation("crossval", "mean", "dict.fromkeys(SCORES, np.mean)", "dict.fromkeys(SCORES, np.max)"),
    Mutation("probe", "weights", "None if class_weights is None else class_weights[y]", "None"),
]
# Files of tests to begin with: those of the file itself, then any that use it.
LIKELY = {
    "losses": ("properties", "softmax", "hinge", "edges"),
    "softmax": ("softmax", "stack"),
    "two_layer": ("two_layer",),
    "logistic": ("logistic",),
    "solver/newton": ("logistic",),
    "solver/arguments": ("logistic",),
    "solver/lbfgs": ("logistic", "files"),
    "solver/eigenbasis": ("logistic",),
    "grid": ("sweep", "nets", "halving"),
    "train": ("training", "sweep", "halving"),
    "classifier": ("probe", "nets", "compiler", "results"),
    "numerics/stack": ("stack",),
    "numerics/digest": ("checkpoint", "data"),
    "numerics/checks": ("edges", "probe"),
    "engine/cells": ("probe", "nets", "sweep"),
    "engine/plan": ("nets", "sweep"),
    "engine/planning": ("nets", "sweep"),
    "engine/blocks": ("nets", "sweep"),
    "engine/schedule": ("sweep",),
    "engine/snapshot": ("checkpoint", "sweep", "halving"),
    "engine/progress": ("checkpoint", "nets", "sweep", "halving"),
    "engine/program": ("nets", "sweep", "halving"),
    "engine/evaluation": ("nets", "sweep", "halving"),
    "engine/training": ("protocols",),
    "engine/halving": ("halving",),
    "data/mirror": ("data",),
    "sweep": ("checkpoint", "sweep"),
    "data/source": ("data",),
    "data/labels": ("data",),
    "table": ("sweep", "report"),
    "artifacts/checkpoint": ("checkpoint",),
    "data/split": ("data", "probe"),
    "data/splits": ("data", "probe"),
    "data/protocols": ("data",),
    "data/files": ("data", "damage"),
    "data/moments": ("data", "files"),
    "data/rows": ("files",),
    "engine/feed": ("sweep",),
    "sampling": ("sampling",),
    "crossval": ("probe", "protocols"),
    "metrics": ("metrics",),
    "optimizers": ("protocols", "training"),
    "ridge": ("ridge",),
    "data/unit": ("protocols",),
    "probe": ("probe",),
}
KNOWN = {  # survivors, by their new text, and why they may
    ("logistic", "np.argsort(values"): "the order of a path changes its time, and no optimum",
}


def main(only: str, jobs: int, likely: bool) -> int:
    """Print a table; 1 if a mutation survives that is not known to, else 0."""
    chosen = [mutation for mutation in MUTATIONS if only in mutation.file]
    with tempfile.TemporaryDirectory() as place, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        cache = Path(os.environ.get("JAXCLS_TESTS_CACHE", place))
        found = pool.map(functools.partial(caught_by, Path(place), cache, likely), chosen)
        gaps = sum(report(mutation, *outcome) for mutation, outcome in zip(chosen, found, strict=True))
    print(f"{len(chosen)} mutations, {gaps} of them in a gap")
    return int(gaps > 0)


def report(mutation: Mutation, test: str | None, seconds: float) -> bool:
    """Print a line; whether it is a gap."""
    known = KNOWN.get((mutation.file, mutation.new))
    verdict = test or ("known" if known else "SURVIVED: " + mutation.new)
    print(f"{mutation.file:21}{mutation.kind:11}{seconds:5.0f} s  {verdict[:40]}", flush=True)
    return not (test or known)


def caught_by(place: Path, cache: Path, likely_alone: bool, mutation: Mutation) -> tuple[str | None, float]:
    """The first test that fails, None if none does; and the seconds that took."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        copy = Path(folder) / "jaxcls"
        shutil.copytree(ROOT, copy, ignore=UNTRACKED)
        path = copy / "jaxcls" / f"{mutation.file}.py"
        path.write_text(mutated(path.read_text(), mutation))
        likely = [f"parity_tests/test_{name}.py" for name in LIKELY[mutation.file]]
        others = [f"--ignore={name}" for name in likely]
        test = first_failure(copy, cache, *likely)
        if not (test or likely_alone):
            test = first_failure(copy, cache, *others)
    return test, time.perf_counter() - began


def mutated(text: str, mutation: Mutation) -> str:
    """The file with the mistake in it."""
    times = text.count(mutation.old)
    assert times == 1, f"{mutation.file} must hold {mutation.old!r} once, got {times}"
    return text.replace(mutation.old, mutation.new)


def first_failure(copy: Path, cache: Path, *args: str) -> str | None:
    """The first test that fails; None if all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--numprocesses=0", *args]
    environment = os.environ | {"PYTHONPATH": str(copy), "JAXCLS_TESTS_CACHE": str(cache)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    if done.returncode < 0:  # killed: it tells nothing of the mistake
        raise ChildProcessError(f"pytest was ended by signal {-done.returncode}")
    failed = re.search(r"^(?:FAILED|ERROR) \S*?test_(\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"pytest itself: exit code {done.returncode}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of the file's name")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--likely", action="store_true", help="run the likeliest files of tests alone")
    sys.exit(main(**vars(parser.parse_args())))
