"""The best linear probe for your features, among 96 values of the L2 penalty.

jaxcls probe --train feats.npz     # splits held out of it
jaxcls probe --train feats.npz --protocol dinov2-logreg   # as published
jaxcls probe --train feats.npy --train-labels labels.txt
jaxcls probe --train a.npz --val b.npz --test c.npz
jaxcls probe --train a.npz --folds 5 --class-weight balanced
jaxcls probe --train a.npz --solver adam --lr 1e-3 1e-2
jaxcls probe --resume runs/probe-20261121-120000   # resume one with minibatches
"""

import argparse
import shlex
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from jaxcls import classifier, crossval, data, probe, sweep, train
from jaxcls.artifacts import checkpoint, plots, record
from jaxcls.artifacts import report as page
from jaxcls.artifacts.folder import claim
from jaxcls.cli import console, protocols, running
from jaxcls.data import Folds, Source, Split, Splits, balanced
from jaxcls.grid import Grid
from jaxcls.numerics import checks
from jaxcls.result import SweepResult, best_first, mean_per_class, tied
from jaxcls.sampling import Sampling

HELD_OUT = 0.15  # of the examples, for each of val and test, where no file is given
LEARNING_RATES = (0.01, 0.1, 1.0)
MOST_ROWS = 12  # of the table, on the screen
FILES = {f"{role}{kind}" for role in ("train", "val", "test") for kind in ("", "_labels")} | {"names"}  # flags
FOR_MINIBATCHES = ("lr", "steps", "batch_size", "sampling")  # flags that a solver does not have


@dataclass(frozen=True)
class Config:
    """The best linear probe for your features, among 96 values of the L2 penalty."""

    train: Path
    """Features X [N, d] and labels y [N]: a file, a folder of files, or a pattern in quotes, as 'emb_*.npy'."""
    protocol: protocols.Name = "standard"
    """The source of the defaults below: our own, or a published protocol."""
    train_labels: Path | None = None
    """Their labels, if they are in a file of their own: .npy, .txt with one a line, or .csv with a column label."""
    names: tuple[str, str] = data.NAMES
    """The names of features and labels in the files."""
    val: Path | None = None
    """Another, to choose reg by; held out of train, class by class, if not given."""
    val_labels: Path | None = None
    """Its labels."""
    test: Path | None = None
    """Another, scored once, at the end; 15% of train, class by class, if not given."""
    test_labels: Path | None = None
    """Its labels."""
    hold_out: float = HELD_OUT
    """The share of train that is held out for val."""
    features: Literal["standard", "raw"] = "standard"
    """Standardise each feature by train, or take it as it is."""
    folds: int = 0
    """Choose by cross-validation with so many folds instead, class by class."""
    class_weight: Literal["none", "balanced"] = "none"
    """Weigh every example alike in the loss, or every class."""
    reg: tuple[float, ...] = ()
    """Values of the L2 penalty, reg * sum(W * W); 96 from 10 to 1e-9 if not given."""
    C: tuple[float, ...] = ()
    """Values of C instead, as scikit-learn's LogisticRegression has it: reg is 1 / (2 * N * C)."""
    refit: bool = False
    """Train the chosen cell on train and val, and score that one on test."""
    solver: Literal["lbfgs", "sgd", "momentum", "nesterov", "adam", "rmsprop"] = "lbfgs"
    """L-BFGS goes to the optimum; the others train on minibatches, at every learning rate."""
    lr: tuple[float, ...] = ()
    """Learning rates, for minibatches; 0.01 0.1 1 if not given."""
    steps: int = 2000
    """Minibatches each cell is trained on."""
    batch_size: int = 200
    """Examples in a minibatch."""
    sampling: Sampling = "replacement"
    """Draw from all each time, or every example once an epoch; or from blocks that lie together on a slow disk."""
    stream: bool = False
    """Read the examples again and again instead of loading them, as is done where they take half the memory."""
    seed: int = 0
    """Of the splits, the folds and the minibatches."""
    certify: bool = False
    """Prove how near the optimum every value is, by Newton's method in float64: for coefficients to many digits."""
    float64: bool = False
    """Compute in float64: twice the time; with --certify, coefficients to near machine precision."""
    memory: str | None = None
    """Memory to stay within, as 4GB; 90 % of a GPU's or half of the host's if not given."""
    out: Path | None = None
    """The run's folder, which must be empty or not exist; runs/probe-DATE-TIME if not given."""
    quiet: bool = False
    """Print nothing but notes and errors."""
    json: bool = False
    """Print the run's record, run.json, and nothing else."""
    resume: Path | None = None
    """The folder of an interrupted run to resume; all other flags come from it."""


def main(args: list[str], program: str) -> int:
    """Read the command line and run the probe; the exit code."""
    args, description = console.without_commas(args), console.paragraphs(__doc__)
    saved = running.saved(args)
    if saved:
        default: Any = running.recorded(Config, saved[1]["config"])
    else:
        first = argparse.ArgumentParser(add_help=False)
        first.add_argument("--protocol", nargs="?", default="standard")
        chosen = protocols.PROTOCOLS.get(first.parse_known_args(args)[0].protocol, {})
        default = Config(train=tyro.MISSING, **chosen)
    config = tyro.cli(Config, default=default, args=args, prog=program, description=description)
    return console.output(lambda: run(config, saved, program), quiet=config.quiet, json=config.json)


def run(config: Config, saved: running.Saved | None, program: str) -> tuple[int, Path]:
    """Train, from a checkpoint if one is given, choose, score, write; the exit code and the run's folder."""
    started = time.perf_counter()
    jax.config.update("jax_enable_x64", config.float64)
    source = read(config)
    with checks.about(config.train, config.val, config.test):
        splits = data.PROTOCOLS[config.features](source)
    grid = hyperparameters(config, num_trained(config, splits))
    out = config.resume or config.out or console.run_folder("probe")
    kept = {name: getattr(config, name) for name in ("out", "quiet", "json", "resume")}
    defaults = {field.name: field.default for field in fields(Config)} | protocols.PROTOCOLS[config.protocol]
    command = record.command(program, config, defaults | {"protocol": "standard"} | kept)
    flags = running.asked(config, FOR_MINIBATCHES if config.solver == "lbfgs" else ())
    asked_for: dict[str, object] = {"kind": "probe", "command": command, "config": flags}
    snapshot = None
    if saved or config.solver != "lbfgs":  # a solver is not resumed, and need not wait for a fingerprint
        asked_for["depends_on"] = depends_on = running.dependencies(flags, FILES, splits)
        snapshot = running.resumed(saved, depends_on, out)
    saver = checkpoint.Saver(out, asked_for)

    def execute(plan: sweep.Plan, data: Splits | Folds) -> SweepResult:
        try:
            rows = config.batch_size * max(config.folds, 1)
            with running.Progress(rows, hidden=config.quiet or config.json) as progress, saver.signals():
                return sweep.execute(
                    plan, data, callback=progress, save=saver, resume=snapshot, select=selection(config)
                )
        except checkpoint.Stopped as stopped:
            resume = f"{program} --resume {shlex.quote(str(out))}"
            running.print_stopped(stopped, len(plan.blocks) * config.steps, resume)
            raise

    with claim(out, resume=saved is not None):
        announce(config, splits, grid, out)
        try:
            result, test = choose(config, source, splits, grid, execute)
        except checkpoint.Stopped as stopped:
            return 128 + stopped.signum, out
        paths = record.write(out, result, splits, asked_for) + plots.save(out, result, splits)
        paths.append(page.write(out))
        saver.path.unlink(missing_ok=True)
    report(config, result, splits, test, paths, time.perf_counter() - started)
    return int(result.best is None), out


def read(config: Config) -> Source:
    """The files as one source, with train/val/test row indices."""
    if config.val and config.folds:
        raise ValueError("--val and --folds are two ways to choose: give one of them")
    published = protocols.PROTOCOLS[config.protocol].get("hold_out", HELD_OUT)
    if config.hold_out != published and (config.val or config.folds):
        raise ValueError("--hold-out is the share of a val that is held out of train: leave out --val and --folds")
    if not 0 < config.hold_out < 0.8:
        raise ValueError(f"--hold-out must lie between 0 and 0.8, got {config.hold_out:g}")
    if config.folds < 0 or config.folds == 1:
        raise ValueError(f"--folds must be at least 2, got {config.folds}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in [0, 2**32), got {config.seed}")
    files = {"train": config.train, "val": config.val, "test": config.test}
    labels = {role: getattr(config, f"{role}_labels") for role in files}
    for role in files:
        if labels[role] and not files[role]:
            raise ValueError(f"--{role}-labels are those of --{role}: give that, too")
    given = {role: data.load(path, labels[role], names=config.names, roles=()) for role, path in files.items() if path}
    first = given["train"]
    for role, source in given.items():
        if (width := source.X.shape[1]) != first.X.shape[1]:
            raise ValueError(f"{files[role]} must have the {first.X.shape[1]} features of {config.train}, got {width}")
        if len(source.val) and len(given) > 1:
            raise ValueError(f"{files[role]} is split by itself: give it alone, as --train")
        if source.note:
            console.note(source.note)
    source = first if len(first.val) else held_out(config, given)
    return for_folds(source, config.folds) if config.folds else source


def held_out(config: Config, given: dict[str, Source]) -> Source:
    """These files as one source; splits without a file are held out of train, class by class."""
    train = given["train"]
    number = {name: k for k, name in enumerate(train.class_names)}
    for role, source in given.items():
        if others := [name for name in source.class_names if name not in number]:
            path = getattr(config, role)
            raise ValueError(f"{path} has classes that {config.train} has not: {', '.join(others)}")
    y = np.concatenate([np.array([number[name] for name in each.class_names])[each.y] for each in given.values()])
    ends = np.cumsum([len(source.y) for source in given.values()])
    rows = dict(zip(given, np.split(np.arange(len(y)), ends[:-1]), strict=True))
    missing = [role for role in ("val", "test") if role not in given and (role == "test" or not config.folds)]
    together = [missing] if config.hold_out == HELD_OUT else [[role] for role in reversed(missing)]
    for roles in together:  # val last, as a share of what is then left of train
        left, fraction = rows["train"], config.hold_out if roles == ["val"] else HELD_OUT
        held, by_class = data.hold_out(train.y[left], roles, fraction=fraction, seed=config.seed)
        if roles and not by_class:
            console.note(f"{config.train}: too few examples of each class, so {' and '.join(roles)} ignore the classes")
        rows |= {role: np.sort(left[each]) for role, each in held.items()}
    rows.setdefault("val", rows["train"])  # folds choose by train alone
    X = (
        train.X
        if len(given) == 1
        else data.Rows([each.X for each in given.values()], [str(getattr(config, role)) for role in given])
    )
    return replace(train, X=X, y=y, train=rows["train"], val=rows["val"], test=rows["test"])


def for_folds(source: Source, folds: int) -> Source:
    """The source with train and val as one, which this many folds are made of, class by class."""
    rows = np.union1d(source.train, source.val)
    counts = np.unique_counts(source.y[rows]).counts
    if (most := counts.max()) < folds:
        raise ValueError(f"--folds must be at most {most}, the examples of the largest class, got {folds}")
    if (fewest := counts.min()) < folds:
        console.note(f"a class has {fewest} examples, so some of the folds have none of it")
    return replace(source, train=rows, val=rows)


def hyperparameters(config: Config, num_train: float) -> Grid:
    """The grid that the command line names, of cells that each train on so many examples."""
    if config.reg and protocols.PROTOCOLS[config.protocol].get("C", ()) != config.C:
        raise ValueError("--reg and --C are two ways to name the penalty: give one of them")
    if by_c(config):
        if min(config.C) <= 0:
            raise ValueError(f"--C must be above 0, got {min(config.C):g}")
        reg = tuple((1 / (2 * num_train * np.array(config.C))).tolist())
    else:
        reg = config.reg or probe.REG
    if config.solver != "lbfgs":
        if config.certify:
            raise ValueError(f"--certify is for --solver lbfgs, got {config.solver}")
        return Grid(config.lr or LEARNING_RATES, reg, (config.seed,))
    for name in FOR_MINIBATCHES:
        if getattr(config, name) != getattr(Config, name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} is for minibatches: add --solver sgd, momentum, nesterov, adam or rmsprop")
    if min(reg) <= 0:
        raise ValueError(f"--reg must be above 0 for --solver lbfgs, got {min(reg):g}")
    return Grid((), reg, ())


def num_trained(config: Config, splits: Splits) -> float:
    """The number of examples that each cell trains on to be chosen: of folds, all parts but one."""
    return len(splits.train) * (1 - 1 / config.folds if config.folds else 1)


def by_c(config: Config) -> bool:
    """Test whether the penalty is named by scikit-learn's C."""
    return bool(config.C) and not config.reg


def choose(
    config: Config,
    source: Source,
    splits: Splits,
    grid: Grid,
    execute: Callable[[sweep.Plan, Splits | Folds], SweepResult],
) -> tuple[SweepResult, Split]:
    """Train all cells, minibatches by ``execute``, and choose the best: on val, or by cross-validation on train.

    Returns:
      The result, and the test set as its params take it.
    """
    memory, select, y = console.number_of_bytes(config.memory), selection(config), splits.train.y
    assert splits.test

    def search(data: Splits | Folds, grid: Grid, /) -> SweepResult:
        labels = data.train.y if isinstance(data, Splits) else y
        weights = balanced(labels, data.num_classes) if config.class_weight == "balanced" else None
        if config.solver == "lbfgs":
            return probe.search(
                data,
                grid,
                class_weights=weights,
                certify=config.certify,
                memory=memory,
                select=select,
                stream=config.stream or None,
            )
        plan = sweep.plan(
            data,
            grid,
            steps=config.steps,
            batch_size=config.batch_size,
            sampling=config.sampling,
            stream=config.stream or None,
            classifier=classifier.linear(class_weights=weights),
            optimizer=train.OPTIMIZERS[config.solver],
            memory=memory,
        )
        again = config.folds or data is not splits  # the best cell, on all of train or more: not worth a checkpoint
        if again and isinstance(data, Splits):
            return sweep.execute(plan, data, select=select)
        return execute(plan, data)

    if not config.folds:
        found = search(splits, grid)
        if not config.refit:
            return found, splits.test
        rows = np.union1d(source.train, source.val)
        whole = data.PROTOCOLS[config.features](replace(source, train=rows, val=rows))
        penalty = len(source.train) / len(rows) if by_c(config) else 1.0  # C stays the same
        assert whole.test
        return crossval.refit(search, found, whole, penalty=penalty), whole.test
    from sklearn.model_selection import StratifiedKFold  # takes a second to import

    rows, parts = source.train, StratifiedKFold(config.folds, shuffle=True, random_state=config.seed)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # `for_folds` has said it
        split = data.standard_folds if config.features == "standard" else data.raw_folds
        folds = split(source, [rows[out] for _, out in parts.split(rows, source.y[rows])])
    penalty = num_trained(config, splits) / len(splits.train) if by_c(config) else 1.0  # C stays the same
    return crossval.run(search, grid, folds, splits, penalty=penalty).result, splits.test


def selection(config: Config) -> str:
    """What ranks the cells: where all classes weigh the same in training, they do so in selection."""
    return "mean-per-class" if config.class_weight == "balanced" else "accuracy"


def announce(config: Config, splits: Splits, grid: Grid, out: Path) -> None:
    """Print the data and the grid of the probe that is about to start."""
    axes = " x ".join(f"{len(values)} {axis}" for axis, values in grid.axes.items())
    count = np.bincount(splits.train.y, minlength=splits.num_classes)
    roles = ("train", "test") if config.folds else ("train", "val", "test")
    console.print_data(splits, roles, f" of {count.min():,} to {count.max():,} in train")
    print(f"grid      {axes} = {len(grid):,} cells, {config.solver}", end="")
    print(f", {config.folds} folds" if config.folds else "", end="")
    print("" if config.protocol == "standard" else f", protocol {config.protocol}")
    print(f"folder    {out}/")


def report(config: Config, result: SweepResult, splits: Splits, test: Split, paths: list[Path], seconds: float) -> None:
    """Print the best cells, the scores of the best one, and the files written."""
    table, axes = result.table, list(result.grid.axes)
    shown = best_first(table["rank"])[:MOST_ROWS]
    heads = f"{'train acc':>10} {'val acc':>9} {'per class':>10} {'rank':>5}"
    print("\n" + " ".join(f"{axis:>10}" for axis in axes), heads)
    for row in table[np.sort(shown)]:
        cell = " ".join(f"{row[axis]:10.4g}" for axis in axes)
        scores = f"{row['train_accuracy']:10.4f} {row['val_accuracy']:9.4f} {row['val_mean_per_class']:10.4f}"
        print(f"{cell} {scores} {row['rank']:5d}")
    if len(table) > MOST_ROWS:
        print(f"... the best {MOST_ROWS} of {len(table)} cells; all are in {paths[0]}")
    console.print_scored(result, splits)
    if config.solver == "lbfgs":
        gap, converged = table["gap"] / table["train_loss"], table["converged"]
        print(f"\nsolved    {converged.sum()} of {len(table)} converged", end="")
        how_near = f", to within {gap[converged].max():.0e} of the least loss{'' if config.certify else ', estimated'}"
        print(how_near if converged.any() else "")
        if len(missed := table["reg"][~converged]):
            further = "" if config.float64 else "; --float64 goes further"
            print(f"          not those from {missed.min():.2g} to {missed.max():.2g}, ", end="")
            print(f"which may be {gap[~converged].max():.0e} above it{further}")
    if result.best is None or result.params is None:
        print("\nevery cell diverged: try lower learning rates")
        return
    row = table[result.best]
    y, predicted = test.y, train.predict(result.classifier, result.params, test)
    correct, of_class = (np.bincount(y, minlength=splits.num_classes) for y in (y[predicted == y], y))
    by = f"the mean of {config.folds} folds" if config.folds else "val"
    as_c = f" (C {1 / (2 * num_trained(config, splits) * row['reg']):.4g})" if by_c(config) else ""
    print(f"best      {', '.join(f'{axis} {row[axis]:.4g}' for axis in axes)}{as_c}: ", end="")
    print(f"{row[result.column]:.4f} on {by}{result.averaging}")
    console.print_ties(result, splits)
    if len(tied(table, result.select)) > 1 and not config.folds and not config.refit:
        print(f"          --folds 5 scores them on all of the {len(splits.train.y) + len(splits.val.y):,}")
    console.print_edges(result)
    if config.refit and not config.folds:
        alike = ", with the same C" if by_c(config) else ""
        print(f"refit     on the {len(splits.train) + len(splits.val):,} of train and val{alike}")
    print(f"test      {result.test_accuracy:.4f}, mean over classes {mean_per_class(correct, of_class):.4f}")
    t = result.timings
    print(f"time      {seconds:.1f} s: compile {t.compile_s:.1f}, train {t.run_s:.1f}, evaluate {t.evaluate_s:.1f}")
    console.print_wrote(paths)
    console.print_prediction(paths[0].parent, result)
