"""Train a whole grid of classifiers at once, and show what it found.

jaxcls sweep                                    # digits
jaxcls sweep --model two-layer --hidden 16 64   # nets
jaxcls sweep --preset cs231n                    # the published grid
jaxcls sweep --data features.npz --lr 0.01 0.1 1 --reg 0 1e-4 1e-3
jaxcls sweep --samples 64 --lr 1e-3:1 --reg 1e-6:1e-1 --halving
jaxcls sweep --resume runs/cs231n-20261121-120000   # resume
jaxcls sweep --refine runs/digits-20261121-120000   # continue around its best
"""

import argparse
import shlex
import time
from dataclasses import replace
from pathlib import Path

import jax
import tyro

from jaxcls import crossval, data, sweep
from jaxcls.artifacts import checkpoint, folder, plots, record
from jaxcls.artifacts import report as page
from jaxcls.cli import console, running
from jaxcls.cli.sweep_config import FILES, PRESETS, Config, check, further, hyperparameters, load, model, optimizer
from jaxcls.cli.sweep_output import ALL_DIVERGED, announce, report, report_stopped
from jaxcls.grid import Cells

PRECISIONS = {"highest": "highest", "tf32": "tensorfloat32", "bf16x3": "BF16_BF16_F32_X3"}
STATE = 2**27  # bytes of the state of all cells that a run keeps at its end


def main(args: list[str], program: str) -> int:
    """Read the command line and run the sweep; the exit code."""
    config, saved, before = parse(args, program)
    return console.output(lambda: run(config, saved, before, program), quiet=config.quiet, json=config.json)


def run(config: Config, saved: running.Saved | None, before: running.Saved | None, program: str) -> tuple[int, Path]:
    """Run the sweep, from a checkpoint or after a finished run if one is given; the exit code and the run's folder."""
    started = time.perf_counter()
    check(config)
    if config.distributed:
        running.join_others()
    jax.config.update("jax_default_matmul_precision", PRECISIONS[config.precision])
    splits = load(config)
    grid = further(config, before[0], before[1]) if before else hyperparameters(config)
    rungs = before[1]["rungs"] if before and config.extend else config.rungs
    loaded_s = time.perf_counter() - started
    name = config.preset if config.data == PRESETS[config.preset].data else data.name_of(config.data)
    out = config.resume or config.out or console.run_folder(name)

    def planned(grid: Cells, halving: sweep.Halving | None = None, trained: int | None = None) -> sweep.Plan:
        return sweep.plan(
            splits,
            grid,
            steps=config.steps,
            batch_size=config.batch_size,
            sampling=config.sampling,
            last_batch=config.last_batch,
            keep=config.keep,
            stream=config.stream or None,
            classifier=model(config),
            optimizer=optimizer(config, splits),
            # The courses record accuracies during training of a net alone.
            history=bool(grid.hidden) and not config.halving,
            halving=halving,
            patience=config.patience,
            ema=config.ema,
            devices=jax.devices() if config.devices == "all" or config.distributed else None,
            memory=console.number_of_bytes(config.memory),
            trained=trained,
        )

    halving = sweep.Halving(rungs=rungs) if config.halving else None
    plan = planned(grid, halving, before[0].losses.shape[1] if before and config.extend else None)
    plan = plan._replace(keep_state=before is not None or plan.state_nbytes <= STATE)
    kept = {"preset": "digits"} | {name: getattr(config, name) for name in ("out", "quiet", "json", "resume")}
    command = record.command(program, config, vars(PRESETS[config.preset]) | kept)
    flags, blocks = running.asked(config), [list(stack.rows.shape) for block in plan.blocks for stack in block]
    depends_on = running.dependencies(flags, {"data", "data_dir", "names", *FILES}, splits) | {"blocks": blocks}
    asked_for: dict[str, object] = {"kind": "sweep", "command": command, "config": flags, "depends_on": depends_on}
    asked_for["cells_are"] = grid.kind
    asked_for["rungs"] = list(plan.halving.rungs) if plan.halving else []
    snapshot = running.resumed(saved, depends_on, out)
    if snapshot is None and before:
        snapshot = running.continued(before, plan, depends_on)
    saver = checkpoint.Saver(out, asked_for)
    if jax.process_index() > 0:  # only process 0 prints and writes files
        result = sweep.execute(plan, splits, save=saver, resume=snapshot, select=config.select)
        return int(result.best is None), out
    with folder.claim(out, resume=saved is not None):
        announce(config, splits, plan, out)
        try:
            rows = config.batch_size * len(config.seeds)
            with (
                running.Progress(rows, hidden=config.quiet or config.json) as progress,
                saver.signals(console.say_stopping),
            ):
                result = sweep.execute(
                    plan, splits, callback=progress, save=saver, resume=snapshot, select=config.select
                )
        except checkpoint.Stopped as stopped:
            report_stopped(stopped, plan, f"{program} --resume {shlex.quote(str(out))}")
            return 128 + stopped.signum, out
        if config.choose == "one-se":
            result = crossval.one_se(lambda data, cell: sweep.execute(planned(cell), splits), result, splits)
        written = time.perf_counter()
        paths = record.write(out, result, splits, asked_for) + plots.save(out, result, splits)
        paths.append(page.write(out))
        if result.snapshot is not None:
            paths.insert(0, running.keep_state(out, result.snapshot, asked_for))
        saver.path.unlink()
    seconds = {"data": loaded_s, "write": time.perf_counter() - written}
    seconds["all"] = sum(seconds.values()) + result.timings.total_s  # what came before it was resumed is in that
    report(result, splits, paths, seconds)
    if result.best is None and config.quiet:
        console.note(ALL_DIVERGED)
    return int(result.best is None), out


def parse(args: list[str], program: str) -> tuple[Config, running.Saved | None, running.Saved | None]:
    """Read the command line, the checkpoint to resume, and the run to continue; they or a preset have the defaults."""
    args = console.without_commas(args)
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--preset", nargs="?", default="digits")
    for flag in ("--extend", "--refine"):
        first.add_argument(flag, nargs="?", type=Path)
    known, saved = first.parse_known_args(args)[0], running.saved(args, "sweep")
    before = running.finished(known.extend or known.refine)
    if saved:
        default = running.recorded(Config, saved[1]["config"])
    elif before:
        config = running.recorded(Config, before[1]["config"])
        default = replace(config, out=None, extend=None, refine=None, quiet=False, json=False)
    else:
        default = PRESETS.get(known.preset, Config())
    config = tyro.cli(
        Config,
        default=default,
        args=args,
        prog=program,
        description=console.paragraphs(__doc__),
    )
    if saved:
        before = running.finished(config.extend or config.refine)
    return config, saved, before
