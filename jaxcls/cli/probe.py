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
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from numpy.typing import NDArray

from jaxcls import classifier, crossval, data, metrics, probe, sweep, table, train
from jaxcls.artifacts import checkpoint, folder, plots, record
from jaxcls.artifacts import report as page
from jaxcls.cli import console, inputs, protocols, running, training
from jaxcls.cli.probe_config import (
    FILES,
    OF_MINIBATCHES,
    SOLVERS,
    Config,
    by_c,
    check,
    hyperparameters,
    num_steps,
    num_trained,
    read,
    selection,
)
from jaxcls.cli.probe_output import announce, report
from jaxcls.data import Folds, Source, Splits, Tries, balanced
from jaxcls.grid import Cells, Grid
from jaxcls.metrics import Metric, Outcomes
from jaxcls.numerics import checks
from jaxcls.result import SweepResult


def main(args: list[str], program: str) -> int:
    """Read the command line and run the probe; the exit code."""
    args, description = console.without_commas(args), console.paragraphs(__doc__)
    saved = running.saved(args, "probe")
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
    check(config)
    source, tests = read(config)
    with checks.about(config.train, config.val, *config.test):
        splits = data.PROTOCOLS[config.features](source)
    grid, select = hyperparameters(config, splits), selection(config)
    table.check_select(select, splits.num_classes)
    few = None
    if config.shots:
        few = data.tries(splits, inputs.shots(splits, config.shots, config.tries, seed=config.seed))
    seconds = {"data": time.perf_counter() - started}
    out = config.resume or config.out or console.run_folder("probe")
    kept = {name: getattr(config, name) for name in ("out", "quiet", "json", "resume")}
    defaults = {field.name: field.default for field in fields(Config)} | protocols.PROTOCOLS[config.protocol]
    command = record.command(program, config, defaults | {"protocol": "standard"} | kept)
    flags = running.asked(config, OF_MINIBATCHES if config.solver in SOLVERS else ())
    asked_for: dict[str, object] = {"kind": "probe", "command": command, "config": flags}
    snapshot = None
    if saved or config.solver not in SOLVERS:  # a solver is not resumed, and need not wait for a fingerprint
        asked_for["depends_on"] = depends_on = running.dependencies(flags, FILES, splits)
        snapshot = running.resumed(saved, depends_on, out)
    saver = checkpoint.Saver(out, asked_for)

    def execute(plan: sweep.Plan, data: Splits | Folds) -> SweepResult:
        try:
            rows = config.batch_size * max(config.folds, config.tries)
            with (
                running.Progress(rows, hidden=config.quiet or config.json) as progress,
                saver.signals(console.say_stopping),
            ):
                return sweep.execute(plan, data, callback=progress, save=saver, resume=snapshot, select=select)
        except checkpoint.Stopped as stopped:
            resume = f"{program} --resume {shlex.quote(str(out))}"
            running.print_stopped(stopped, plan, resume)
            raise

    with folder.claim(out, resume=saved is not None):
        announce(config, splits, grid, out)
        try:
            result, prepared, outcomes = choose(config, source, splits, few, grid, execute)
        except checkpoint.Stopped as stopped:
            return 128 + stopped.signum, out
        more, tries = on_other_tests(result, prepared, source, tests), over_tries(outcomes, splits.num_classes)
        asked_for["more_tests"] = {name: record.as_json(scored) for name, scored in more.items()}
        if tries:
            asked_for["tries"] = tries
        written = time.perf_counter()
        paths = record.write(out, result, splits, asked_for) + plots.save(out, result, splits)
        paths.append(page.write(out))
        saver.path.unlink(missing_ok=True)
    seconds |= {"write": time.perf_counter() - written, "all": time.perf_counter() - started}
    report(config, result, splits, more, tries, paths, seconds)
    return int(result.params is None), out


def choose(
    config: Config,
    source: Source,
    splits: Splits,
    few: Tries | None,
    grid: Grid,
    execute: Callable[[sweep.Plan, Splits | Folds], SweepResult],
) -> tuple[SweepResult, Splits, list[Outcomes]]:
    """Train all cells, minibatches by ``execute``, and choose the best: on val, or by cross-validation on train.

    Returns:
      The result, the splits as its params take them, and where there are several tries the outcomes of each.
    """
    memory, select, y = console.number_of_bytes(config.memory), selection(config), splits.train.y

    def search(data: Splits | Folds, grid: Cells, /, *, saved: bool = False) -> SweepResult:
        labels = data.train.y if isinstance(data, Splits) else data.train.y[: data.parts[0]] if few else y
        weights = balanced(labels, data.num_classes) if config.class_weight == "balanced" else None
        if config.solver in SOLVERS:
            return probe.search(
                data,
                grid,
                solver=config.solver,
                class_weights=weights,
                certify=config.certify,
                memory=memory,
                select=select,
                stream=config.stream or None,
            )
        steps = num_steps(config, data.num_train(0))
        plan = sweep.plan(
            data,
            grid,
            steps=steps,
            batch_size=config.batch_size,
            sampling=config.sampling,
            last_batch=config.last_batch,
            keep=config.keep,
            stream=config.stream or None,
            classifier=classifier.linear(init=config.init, init_scale=config.init_scale, class_weights=weights),
            optimizer=training.optimizer(
                config.solver,
                schedule=config.schedule,
                warmup=config.warmup,
                steps=steps,
                bias_row=None if config.decay_bias else data.num_features,
            ),
            memory=memory,
        )
        if saved or isinstance(data, Folds):  # the best cell alone, or a few, are not worth a checkpoint
            return execute(plan, data)
        return sweep.execute(plan, data, select=select)

    if few is not None:
        result, outcomes = crossval.tries(search, grid, few)
        return result, few.split(0), outcomes
    if not config.folds:
        peak = config.search == "peak"
        found = crossval.peak(search, grid, splits) if peak else search(splits, grid, saved=True)
        if config.choose == "one-se":
            found = crossval.one_se(search, found, splits)
        if not config.refit:
            return found, splits, []
        rows = np.union1d(source.train, source.val)
        whole = data.PROTOCOLS[config.features](replace(source, train=rows, val=rows))
        penalty = len(source.train) / len(rows) if by_c(config) else 1.0  # C stays the same
        return crossval.refit(search, found, whole, penalty=penalty), whole, []
    from sklearn.model_selection import StratifiedKFold  # takes a second to import

    rows, parts = source.train, StratifiedKFold(config.folds, shuffle=True, random_state=config.seed)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # `for_folds` has said it
        folds = data.FOLDS[config.features](source, [rows[out] for _, out in parts.split(rows, source.y[rows])])
    penalty = num_trained(config, splits) / len(splits.train) if by_c(config) else 1.0  # C stays the same
    validated = crossval.run(search, grid, folds, splits, penalty=penalty, choose=config.choose)
    return validated.result, splits, []


def over_tries(outcomes: list[Outcomes], num_classes: int) -> dict[str, dict[str, float]]:
    """The mean and the deviation over several tries of each metric on test; empty without tries."""
    found = [metrics.values(each, num_classes) for each in outcomes]
    values = {name: np.array([each[name] for each in found]) for name in (found[0] if found else ())}
    return {name: {"mean": float(each.mean()), "deviation": float(each.std())} for name, each in values.items()}


def on_other_tests(
    result: SweepResult, prepared: Splits, source: Source, tests: dict[str, NDArray[np.integer]]
) -> dict[str, dict[str, Metric]]:
    """The best cell's metrics on each test set but the first, by the name of its file."""
    if result.params is None or prepared.test is None:
        return {}
    others = {name: replace(prepared.test, y=source.y[rows], rows=rows) for name, rows in list(tests.items())[1:]}
    found = {name: train.outcomes(result.classifier, result.params, each) for name, each in others.items()}
    return {name: metrics.measure(each, prepared.num_classes) for name, each in found.items()}
