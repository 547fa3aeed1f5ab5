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
import math
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from jaxcls import classifier, crossval, data, optimizers, refine, sweep
from jaxcls.artifacts import checkpoint, plots, record
from jaxcls.artifacts import report as page
from jaxcls.artifacts.folder import claim
from jaxcls.classifier import Classifier
from jaxcls.cli import axes, console, running, training
from jaxcls.cli.axes import Number, Whole
from jaxcls.data import NAMES, Source, Splits
from jaxcls.grid import Cells, of_table
from jaxcls.numerics import checks
from jaxcls.optimizers import Optimizer
from jaxcls.result import Select, SweepResult, best_first, best_row
from jaxcls.sampling import Sampling

PRECISIONS = {"highest": "highest", "tf32": "tensorfloat32", "bf16x3": "BF16_BF16_F32_X3"}
WITH_LABELS = ("digits", "cifar10")  # data that are not a file of the user
MOST_ROWS = 100  # of the table, on the screen
STATE = 2**27  # bytes of the state of all cells that a run keeps at its end


@dataclass(frozen=True)
class Config:
    """Train a whole grid of classifiers at once, and show what it found."""

    preset: Literal[
        "digits", "cs231n", "cs231n-net", "eecs498", "eecs498-net-hidden", "eecs498-net-reg", "eecs498-net-lr"
    ] = "digits"
    """The source of all defaults below: the bundled digits, or one of the courses' published experiments."""
    data: str = "digits"
    """digits, cifar10, or features and labels: a file, a folder of files, or a pattern in quotes, as 'emb_*.npy'."""
    labels: Path | None = None
    """The file of the labels, if they are not in that of the features: .npy, .txt with one a line, .csv."""
    names: tuple[str, str] = NAMES
    """The names of features and labels in the files."""
    protocol: Literal["standard", "raw", "l2", "cs231n", "eecs498"] = "standard"
    """Each feature to mean 0 and deviation 1, or as it is; each example to length 1; or as a course has CIFAR-10."""
    data_dir: Path | None = None
    """The folder that holds CIFAR-10; downloaded once into the user's cache if not given."""
    model: Literal["linear", "two-layer"] = "linear"
    """The softmax classifier, or the net with one hidden layer of ReLU units."""
    hidden: tuple[Whole, ...] = ()
    """Numbers of hidden units, for the two-layer net; 100 if not given."""
    lr: tuple[Number, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Learning rates, or with --samples a range of them."""
    reg: tuple[Number, ...] = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    """Regularisation values: of the L2 penalty."""
    samples: int | None = None
    """Draw so many random points, from ranges such as --lr 1e-4:1 and from lists, instead of every combination."""
    seeds: tuple[int, ...] = (0,)
    """Replicates: each has its own initial weights and its own minibatches."""
    steps: int = 2000
    """Minibatches each cell is trained on."""
    batch_size: int = 100
    """Examples in a minibatch."""
    sampling: Sampling = "replacement"
    """Draw from all each time, or every example once an epoch; or from blocks that lie together on a slow disk."""
    optimizer: training.Name = "sgd"
    """The optimizer, with the learning rate of each cell."""
    weight_decay: tuple[Number, ...] = ()
    """Values of the decoupled weight decay of adamw; 1e-4 if not given."""
    momentum: tuple[Number, ...] = ()
    """Values of the momentum of momentum and nesterov; 0.9 if not given."""
    label_smoothing: tuple[Number, ...] = ()
    """Shares of each label that are spread over all classes; 0 if not given."""
    decay: float = 1.0
    """Once an epoch, the learning rate is multiplied by this."""
    schedule: training.ScheduleName = "constant"
    """Of the learning rate: constant; a cosine to 0; or a tenth after 60% of the steps and a hundredth after 80%."""
    warmup: int = 0
    """The number of first steps in which the learning rate rises from 0."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, as 0.999, which is scored and kept instead of them."""
    flip: bool = False
    """Mirror half of the pictures of each minibatch, at random."""
    select: Select = "accuracy"
    """The metric on val that chooses the best cell."""
    keep: sweep.Keep = "last"
    """The weights of each cell: those after the last step, or the best on val of ten evaluations and the last."""
    halving: bool = False
    """After a few steps drop two thirds of the cells, those with the worst scores on val; then again, and again."""
    rungs: tuple[int, ...] = ()
    """Numbers of steps after which --halving drops cells; a tenth, a quarter and a half of them if not given."""
    patience: int | None = None
    """Evaluations without a better score after which a cell's training ends; for --keep best."""
    choose: crossval.Choose = "best"
    """Take the best cell, or of those within one standard error of it the most regularised and slowest."""
    init: classifier.Init = "normal"
    """Initial weights: normal, or uniform as those of torch.nn.Linear."""
    init_scale: float | None = None
    """Standard deviation of normal initial weights; 1e-3 for linear, 1e-2 for two-layer if not given."""
    precision: Literal["highest", "tf32", "bf16x3"] = "highest"
    """Of matrix products on a GPU: float32, TensorFloat-32, or three products of bfloat16."""
    devices: Literal["one", "all"] = "one"
    """Train on one device, or split the cells over all."""
    distributed: bool = False
    """This is one of several processes, as SLURM, MPI or Kubernetes starts them: devices are those of all."""
    stream: bool = False
    """Read the examples while they are trained on, to the same result, as is done where they take half the memory."""
    memory: str | None = None
    """Memory to stay within on each device, as 4GB; 90 % of a GPU's or half of the host's if not given."""
    out: Path | None = None
    """The run's folder, which must be empty or not exist; runs/NAME-DATE-TIME, by preset or data, if not given."""
    quiet: bool = False
    """Print nothing but notes and errors."""
    json: bool = False
    """Print the run's record, run.json, and nothing else."""
    resume: Path | None = None
    """The folder of an interrupted run to resume; all other flags come from it."""
    extend: Path | None = None
    """The folder of a finished run, to train its cells further, to --steps; all other flags come from it."""
    refine: Path | None = None
    """The folder of a finished run, to search around its best cell; all other flags come from it."""


EECS498_NET = Config(
    data="cifar10",
    protocol="eecs498",
    model="two-layer",
    hidden=(128,),
    steps=3000,
    batch_size=1000,
    decay=0.95,
    init_scale=1e-4,
)
PRESETS = {
    "digits": Config(),
    "cs231n": Config(
        preset="cs231n",
        data="cifar10",
        protocol="cs231n",
        lr=tuple(np.linspace(1e-7, 5e-7, 10).tolist()),
        reg=tuple(np.linspace(2.5e4, 5e4, 10).tolist()),
        seeds=(2,),
        steps=1500,
        batch_size=200,
    ),
    "cs231n-net": Config(
        preset="cs231n-net",
        data="cifar10",
        protocol="cs231n",
        model="two-layer",
        hidden=(50,),
        lr=(1e-4,),
        reg=(0.25,),
        steps=1000,
        batch_size=200,
        decay=0.95,
        init_scale=1e-4,
    ),
    "eecs498": Config(
        preset="eecs498",
        data="cifar10",
        protocol="eecs498",
        lr=(3e-3, 5e-3, 7e-3, 9e-3, 1e-2),
        reg=(1e-2, 3e-2, 5e-2, 7e-2, 9e-2),
        steps=2000,
        batch_size=200,
        init_scale=1e-6,
    ),
    "eecs498-net-hidden": replace(
        EECS498_NET, preset="eecs498-net-hidden", hidden=(2, 8, 32, 128), lr=(0.1,), reg=(1e-3,)
    ),
    "eecs498-net-reg": replace(EECS498_NET, preset="eecs498-net-reg", lr=(1.0,), reg=(0.0, 1e-5, 1e-3, 1e-1)),
    "eecs498-net-lr": replace(EECS498_NET, preset="eecs498-net-lr", lr=(1e-4, 1e-2, 1.0, 1e2), reg=(1e-4,)),
}


def main(args: list[str], program: str) -> int:
    """Read the command line and run the sweep; the exit code."""
    config, saved, before = parse(args, program)
    return console.output(lambda: run(config, saved, before, program), quiet=config.quiet, json=config.json)


def run(config: Config, saved: running.Saved | None, before: running.Saved | None, program: str) -> tuple[int, Path]:
    """Run the sweep, from a checkpoint or after a finished run if one is given; the exit code and the run's folder."""
    started = time.perf_counter()
    if config.distributed:
        jax.distributed.initialize()
    jax.config.update("jax_default_matmul_precision", PRECISIONS[config.precision])
    for name in ("steps", "batch_size"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    splits = load(config)
    grid = further(config, before[0], before[1]) if before else hyperparameters(config)
    rungs = before[1]["rungs"] if before and config.extend else config.rungs
    loaded_s = time.perf_counter() - started
    name = config.preset if config.data == PRESETS[config.preset].data else data.name_of(config.data)
    out = config.resume or config.out or console.run_folder(name)
    if config.choose == "one-se" and (config.select != "accuracy" or config.distributed):
        raise ValueError("--choose one-se is for --select accuracy, in one process")
    if config.rungs and not config.halving:
        raise ValueError("--rungs are those of --halving: add that")
    if config.halving and config.schedule != "constant":
        raise ValueError(
            f"--halving judges cells before --schedule {config.schedule} has lowered their learning rates: "
            "leave out one of them"
        )

    def planned(grid: Cells, halving: sweep.Halving | None = None, trained: int | None = None) -> sweep.Plan:
        return sweep.plan(
            splits,
            grid,
            steps=config.steps,
            batch_size=config.batch_size,
            sampling=config.sampling,
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
    plan = plan._replace(keep_state=plan.state_nbytes <= STATE)
    kept = {"preset": "digits"} | {name: getattr(config, name) for name in ("out", "quiet", "json", "resume")}
    command = record.command(program, config, vars(PRESETS[config.preset]) | kept)
    flags, blocks = running.asked(config), [list(block.rows.shape) for block in plan.blocks]
    depends_on = running.dependencies(flags, {"data", "labels", "names", "data_dir"}, splits) | {"blocks": blocks}
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
    with claim(out, resume=saved is not None):
        announce(config, splits, plan, out)
        try:
            rows = config.batch_size * len(config.seeds)
            with running.Progress(rows, hidden=config.quiet or config.json) as progress, saver.signals():
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
    return int(result.best is None), out


def hyperparameters(config: Config) -> Cells:
    """The cells that the command line names."""
    if config.model == "linear" and config.hidden:
        raise ValueError("--hidden is for nets: add --model two-layer")
    values = {axis: getattr(config, axis) for axis in ("lr", "reg", "weight_decay", "momentum", "label_smoothing")}
    hidden = {"hidden": config.hidden or (100,)} if config.model == "two-layer" else {}
    return axes.cells(values | hidden, config.seeds, config.samples)


def further(config: Config, snapshot: sweep.Snapshot, run: Mapping[str, Any]) -> Cells:
    """The cells of a finished run, and with --refine those around its best one after them."""
    cells = of_table(snapshot.table, points=run["cells_are"] == "points")
    if config.extend and config.refine:
        raise ValueError("--extend and --refine are two ways to continue a run: give one of them")
    if config.extend:
        if config.patience or config.schedule != "constant":
            flag = "--patience" if config.patience else f"--schedule {config.schedule}"
            raise ValueError(f"{config.extend} cannot be extended: its {flag} ended the training of its cells")
        return cells
    best = best_row(snapshot.table)
    if best is None:
        raise ValueError(f"{config.refine} has no best cell to search around: every cell diverged")
    return refine.joined(cells, refine.around(cells, best))


def model(config: Config) -> Classifier:
    """The model that the command line names."""
    if config.init == "uniform" and config.init_scale is not None:
        raise ValueError("--init-scale is of normal weights: leave out --init uniform")
    if config.model == "linear":
        return classifier.linear(init=config.init, init_scale=1e-3 if config.init_scale is None else config.init_scale)
    scale = 1e-2 if config.init_scale is None else config.init_scale
    return classifier.two_layer_net(init=config.init, init_scale=scale)


def optimizer(config: Config, splits: Splits) -> Optimizer:
    """The optimizer that the command line names, with its schedule or its decay of the learning rate."""
    if config.decay != 1 and (config.schedule != "constant" or config.warmup):
        raise ValueError("--decay and --schedule are two ways to change the learning rate: give one of them")
    schedule = {"schedule": config.schedule, "warmup": config.warmup, "steps": config.steps}
    chosen = training.optimizer(config.optimizer, **schedule)
    if config.decay == 1:
        return chosen
    epoch = optimizers.steps_per_epoch(len(splits.train.y), config.batch_size)
    return optimizers.decayed(chosen, config.decay, epoch)


def load(config: Config) -> Splits:
    """Read the data that the command line names, and prepare it."""
    source = read(config)
    if source.note:
        console.note(source.note)
    with checks.about(None if config.data in WITH_LABELS else config.data):
        splits = data.PROTOCOLS[config.protocol](source)
        return data.mirrored(splits) if config.flip else splits


def read(config: Config) -> Source:
    """Read the raw data."""
    if config.labels and config.data in WITH_LABELS:
        raise ValueError(f"--labels are those of a file: give that as --data, got {config.data}")
    if config.data == "digits":
        return data.load_digits()
    if config.data == "cifar10":
        return data.load_cifar10(config.data_dir)
    if not Path(config.data).suffix and not Path(config.data).is_dir():
        raise ValueError(f"--data must be digits, cifar10 or the path of files, got {config.data}")
    return data.load(config.data, config.labels, names=config.names)


def announce(config: Config, splits: Splits, plan: sweep.Plan, out: Path) -> None:
    """Print the data, the grid and the memory of the sweep that is about to start."""
    blocks = len(plan.blocks)
    decay = f", decay {config.decay:g} an epoch" if config.decay != 1 else ""
    decay += f", {config.schedule}" if config.schedule != "constant" else ""
    decay += f", warm-up of {config.warmup:,}" if config.warmup else ""
    console.print_data(splits, ("train", "val", "test"))
    if config.extend:
        print(f"extends   {config.extend}, to {config.steps:,} steps")
    if config.refine:
        print(f"refines   {config.refine}, around its best cell")
    print(f"grid      {plan.grid} = {len(plan.grid):,} cells")
    print(f"          {config.steps:,} steps of {config.batch_size} examples, {config.optimizer}{decay}")
    if plan.halving:
        print(f"halving   the best third stays after {', '.join(f'{rung:,}' for rung in plan.halving.rungs)} steps")
    of_data = f"{megabytes(plan.groups[0].memory.data)} data{', read while training' if plan.stream else ''}"
    print(f"memory    about {megabytes(plan.nbytes)}, of it {of_data}", end="")
    print(f"; {blocks} blocks, one after another" if blocks > 1 else "")
    print(f"folder    {out}/")


def report(result: SweepResult, splits: Splits, paths: list[Path], seconds: dict[str, float]) -> None:
    """Print the table, the best cell, where the time went and what was written."""
    table, best = result.table, result.best
    axes = list(result.grid.axes)
    shown = np.argsort(table, order=axes)
    if len(table) > MOST_ROWS:
        shown = best_first(table["rank"])[:MOST_ROWS]
    print_table(table, axes, shown, lambda k: f"diverged at step {table['diverged_at'][k]}")
    if len(table) > MOST_ROWS:
        print(f"... the best {MOST_ROWS} of {len(table):,} cells; all are in {paths[0]}")

    console.print_scored(result, splits)
    if best is None:
        print("\nevery cell diverged: try lower learning rates")
    else:
        row = table[best]
        print(f"\nbest      {', '.join(f'{axis} {row[axis]:g}' for axis in axes)}")
        print(f"          {row[result.column]:.4f} on val{result.on_val}, {result.test_accuracy:.4f} on test")
        console.print_ties(result, splits)
        console.print_one_se(result, splits)
        console.print_edges(result)
        console.print_metrics(result.metrics)
    t = result.timings
    print(
        f"time      {seconds['all']:.1f} s: data {seconds['data']:.1f}, compile {t.compile_s:.1f}, "
        f"train {t.run_s:.1f}, evaluate {t.evaluate_s:.1f}, write {seconds['write']:.1f}"
    )
    trained = sum(cells * (last - first) for cells, first, last in result.stages)
    print(f"speed     {trained / t.run_s:,.0f} cell-steps per second")
    console.print_wrote(paths)
    if best is not None:
        console.print_prediction(paths[0].parent, result)


def report_stopped(stopped: checkpoint.Stopped, plan: sweep.Plan, resume: str) -> None:
    """Print the progress of every cell, and the command that resumes the run."""
    snapshot = stopped.snapshot
    table, losses, block, step = snapshot.table, snapshot.losses, snapshot.block, snapshot.step
    blocks, axes = plan.blocks_of(snapshot.alive), list(plan.grid.axes)

    def how_far(k: int) -> str:
        if table["diverged_at"][k] >= 0:
            return f"diverged at step {table['diverged_at'][k]}"
        if table["stopped_at"][k] >= 0:
            return f"stopped at step {table['stopped_at'][k]}"
        if not step or k not in blocks[block].rows:
            return "not begun"
        finite = np.isfinite(losses[k, :step])
        return (
            f"loss {losses[k, step - 1]:.4f} at step {step}" if finite.all() else f"diverged at step {finite.argmin()}"
        )

    order = np.argsort(table, order=axes)
    if len(table) > MOST_ROWS:
        order = order[np.argsort(losses[order, step - 1])][:MOST_ROWS]
    print_table(table, axes, order, how_far)
    running.print_stopped(stopped, plan, resume)


def print_table(table: np.ndarray, axes: list[str], shown: np.ndarray, else_say: Callable[[int], str]) -> None:
    """Print these rows: cell, accuracies and rank, or ``else_say`` of cells without rank."""
    best = best_row(table)
    print("\n" + " ".join(f"{axis:>{width(axis)}}" for axis in axes), f"{'train acc':>10} {'val acc':>9} {'rank':>6}")
    for k in shown.tolist():
        row = table[k]
        cell = " ".join(f"{row[axis]:{width(axis)}.6g}" for axis in axes)
        if row["rank"]:
            end = f"  to step {row['stopped_at']:,}" if row["stopped_at"] >= 0 else ""
            star = f"{end}  <- best" if k == best else end
            print(f"{cell} {score(row['train_accuracy']):>10} {row['val_accuracy']:9.4f} {row['rank']:6d}{star}")
        else:
            print(f"{cell}   {else_say(k)}")


def score(value: float) -> str:
    """A score of the table; empty for train's of a cell that halving dropped."""
    return f"{value:.4f}" if math.isfinite(value) else ""


def width(axis: str) -> int:
    """Characters of a column of the table."""
    return {"lr": 12, "reg": 12, "seed": 5}.get(axis, max(7, len(axis)))


def megabytes(count: int) -> str:
    """A number of bytes as text."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def parse(args: list[str], program: str) -> tuple[Config, running.Saved | None, running.Saved | None]:
    """Read the command line, the checkpoint to resume, and the run to continue; they or a preset have the defaults."""
    args = console.without_commas(args)
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--preset", nargs="?", default="digits")
    for flag in ("--extend", "--refine"):
        first.add_argument(flag, nargs="?", type=Path)
    known, saved = first.parse_known_args(args)[0], running.saved(args)
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
