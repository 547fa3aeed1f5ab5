"""The flags of ``jaxcls sweep``, their presets, and the data, the cells and the model that they name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcls import classifier, crossval, data, optimizers, refine, sweep
from jaxcls.classifier import Classifier
from jaxcls.cli import axes, console, inputs, running, training
from jaxcls.cli.axes import Number, Whole
from jaxcls.data import NAMES, Source, Splits
from jaxcls.grid import Cells, of_table
from jaxcls.numerics import checks
from jaxcls.optimizers import Optimizer
from jaxcls.sampling import LastBatch, Sampling
from jaxcls.table import Select, best_row

AXES = ("lr", "reg", "weight_decay", "momentum", "label_smoothing")  # flags of the same names
WITH_LABELS = ("digits", "cifar10")  # data that are not a file of the user
FILES = ("labels", "val", "val_labels", "test", "test_labels")  # flags beside a file of the user


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
    val: Path | None = None
    """Other examples, to choose by; 15% of --data, class by class, if not given."""
    val_labels: Path | None = None
    """Their labels."""
    test: Path | None = None
    """Others, scored once, at the end; 15% of --data, class by class, if not given."""
    test_labels: Path | None = None
    """Their labels."""
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
    last_batch: LastBatch = "continued"
    """The last minibatch of an epoch: continued with the next epoch, kept though it is smaller, or dropped."""
    optimizer: training.Name = "sgd"
    """The optimizer, with the learning rate of each cell."""
    weight_decay: tuple[Number, ...] = ()
    """Values of the decoupled weight decay of adamw; 1e-4 if not given."""
    momentum: tuple[Number, ...] = ()
    """Values of the momentum of momentum and nesterov; 0.9 if not given."""
    label_smoothing: tuple[Number, ...] = ()
    """Shares of each label that are spread over all classes; 0 if not given."""
    decay: tuple[Number, ...] = ()
    """Values of what the learning rate is multiplied by once an epoch; 1 if not given."""
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
    decay=(0.95,),
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
        decay=(0.95,),
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


def check(config: Config) -> None:
    """Raise a ValueError where flags contradict one another, before anything is read."""
    training.check_counts(steps=config.steps, batch_size=config.batch_size)
    if not config.seeds:
        raise ValueError("--seeds must be at least one, got none")
    if config.choose == "one-se" and (config.select != "accuracy" or config.distributed):
        raise ValueError("--choose one-se is for --select accuracy, in one process")
    if config.patience is not None and config.keep != "best":
        raise ValueError("--patience is for cells that keep their best weights: add --keep best")
    if config.rungs and not config.halving:
        raise ValueError("--rungs are those of --halving: add that")
    if not config.extend and not config.refine:  # which name cells, and whose rungs are past
        training.check_axes(config.optimizer, {axis: getattr(config, axis) for axis in AXES}, flag="--optimizer")
        if list(config.rungs) != sorted({rung for rung in config.rungs if 0 < rung < config.steps}):
            given = " ".join(map(str, config.rungs))
            raise ValueError(f"--rungs must ascend between 0 and the {config.steps} steps, got {given}")
    if config.halving and config.schedule != "constant":
        raise ValueError(
            f"--halving judges cells before --schedule {config.schedule} has lowered their learning rates: "
            "leave out one of them"
        )
    if config.data_dir and config.data != "cifar10":
        raise ValueError(f"--data-dir is the folder of --data cifar10, got {config.data}")
    if config.data in WITH_LABELS:
        for name in FILES:
            if getattr(config, name):
                raise ValueError(f"--{name.replace('_', '-')} is beside a file: give that as --data, got {config.data}")
        if config.names != NAMES:
            raise ValueError(f"--names are those of a file: give that as --data, got {config.data}")
    else:
        files(config)


def hyperparameters(config: Config) -> Cells:
    """The cells that the command line names."""
    if config.model == "linear" and config.hidden:
        raise ValueError("--hidden is for nets: add --model two-layer")
    values = {axis: getattr(config, axis) for axis in AXES}
    hidden = {"hidden": config.hidden or (100,)} if config.model == "two-layer" else {}
    decay = {"decay": config.decay} if decay_of_all(config) is None else {}
    return axes.cells(values | decay | hidden, config.seeds, config.samples)


def decay_of_all(config: Config) -> float | None:
    """The decay of the learning rate of all cells; None where they differ in it."""
    if not config.decay:
        return 1.0
    first, *others = config.decay
    return None if others or isinstance(first, str) else float(first)


def further(config: Config, snapshot: sweep.Snapshot, run: Mapping[str, Any]) -> Cells:
    """The cells of a finished run, and with --refine those around its best one after them."""
    cells = of_table(snapshot.table, points=run["cells_are"] == "points")
    if config.extend and config.refine:
        raise ValueError("--extend and --refine are two ways to continue a run: give one of them")
    recorded, folder = running.recorded(Config, run["config"]), config.extend or config.refine
    for name in (*AXES, "decay", "hidden", "seeds", "samples"):
        if getattr(config, name) != getattr(recorded, name):
            raise ValueError(f"--{name.replace('_', '-')} names cells, and those are of {folder}: leave it out")
    if config.refine and config.steps != recorded.steps:
        raise ValueError(f"--steps must be the {recorded.steps} of {folder}, whose cells stay, got {config.steps}")
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
    decay = decay_of_all(config)
    if decay != 1 and (config.schedule != "constant" or config.warmup):
        raise ValueError("--decay and --schedule are two ways to change the learning rate: give one of them")
    schedule = {"schedule": config.schedule, "warmup": config.warmup, "steps": config.steps}
    chosen = training.optimizer(config.optimizer, **schedule)
    if decay == 1:
        return chosen
    epoch = optimizers.steps_per_epoch(len(splits.train.y), config.batch_size)
    return optimizers.decayed(chosen, decay, epoch)


def load(config: Config) -> Splits:
    """Read the data that the command line names, and prepare it."""
    source = read(config)
    with checks.about(*(() if config.data in WITH_LABELS else (config.data, config.val, config.test))):
        splits = data.PROTOCOLS[config.protocol](source)
        return data.mirrored(splits) if config.flip else splits


def read(config: Config) -> Source:
    """Read the raw data."""
    if config.data in WITH_LABELS:
        source = data.load_digits() if config.data == "digits" else data.load_cifar10(config.data_dir)
        if source.note:
            console.note(source.note)
        return source
    if not Path(config.data).suffix and not Path(config.data).is_dir():
        raise ValueError(f"--data must be digits, cifar10 or the path of files, got {config.data}")
    if list(Path(config.data).glob("data_batch_1*")) or list(Path(config.data).glob("cifar-10-batches-*")):
        raise ValueError(f"--data must be cifar10 for a folder that holds it: give that as --data-dir {config.data}")
    return inputs.read(files(config)).source


def files(config: Config) -> inputs.Files:
    """The files that the command line names."""
    test, of_test = ((path,) if path else () for path in (config.test, config.test_labels))
    labels = config.labels, config.val_labels, of_test
    return inputs.named(Path(config.data), config.val, test, labels, names=config.names, flag="--data")
