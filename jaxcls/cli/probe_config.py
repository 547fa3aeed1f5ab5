"""The flags of ``jaxcls probe``, their checks, and the grid that they name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxcls import classifier, crossval, data, probe, sweep
from jaxcls.cli import inputs, protocols, training
from jaxcls.data import Splits
from jaxcls.grid import Grid
from jaxcls.sampling import LastBatch, Sampling, epoch_size
from jaxcls.table import Select

LEARNING_RATES = (0.01, 0.1, 1.0)
FILES = {"train", "train_labels", "val", "val_labels", "test", "test_labels", "names"}  # flags
OF_MINIBATCHES = (  # flags that a solver does not have
    "lr",
    "weight_decay",
    "momentum",
    "b2",
    "label_smoothing",
    "decay_bias",
    "schedule",
    "warmup",
    "base_batch",
    "init",
    "init_scale",
    "steps",
    "epochs",
    "batch_size",
    "sampling",
    "last_batch",
    "keep",
)
SOLVERS = ("lbfgs", "ridge")
OF_OPTIMIZER = ("weight_decay", "momentum", "b2", "label_smoothing")  # axes beside lr and reg


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
    test: tuple[Path, ...] = ()
    """Others, scored once, at the end; 15% of train, class by class, if not given."""
    test_labels: tuple[Path, ...] = ()
    """Their labels."""
    hold_out: float = inputs.HELD_OUT
    """The share of train that is held out for val."""
    shots: int = 0
    """Train on so many random examples of each class; on all if 0."""
    tries: int = 1
    """Draw so many of these subsets, and report the mean and deviation."""
    features: Literal["standard", "raw", "l2"] = "standard"
    """Standardise each feature by train, take it as it is, or scale each example to length 1."""
    folds: int = 0
    """Choose by cross-validation with so many folds instead, class by class."""
    class_weight: Literal["none", "balanced"] = "none"
    """Weigh every example alike in the loss, or every class."""
    select: Select | None = None
    """The metric on val that chooses; accuracy, or mean-per-class with --class-weight balanced, if not given."""
    choose: crossval.Choose = "best"
    """Take the best cell, or of those within one standard error of it the most regularised and slowest."""
    search: Literal["all", "peak"] = "all"
    """Train all values of the one axis that has several, or a few around the peak, one after another."""
    reg: tuple[float, ...] = ()
    """Values of the L2 penalty, reg * sum(W * W); 96 from 10 to 1e-9 if not given."""
    C: tuple[float, ...] = ()
    """Values of C instead, as scikit-learn's LogisticRegression has it: reg is 1 / (2 * N * C)."""
    refit: bool = False
    """Train the chosen cell on train and val, and score that one on test."""
    solver: Literal["lbfgs", "ridge", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"] = "lbfgs"
    """L-BFGS goes to the optimum, ridge regresses on one-hot targets; the others train on minibatches."""
    lr: tuple[float, ...] = ()
    """Learning rates, for minibatches; 0.01 0.1 1 if not given."""
    base_batch: int = 0
    """The batch size that --lr is for: it is multiplied by the batch size, divided by this; 0 for --lr as it is."""
    weight_decay: tuple[float, ...] = ()
    """Values of the decoupled weight decay of adamw; reg is then 0 if not given."""
    decay_bias: bool = True
    """Decay the bias with the weights."""
    momentum: tuple[float, ...] = ()
    """Values of the momentum of momentum and nesterov; 0.9 if not given."""
    b2: tuple[float, ...] = ()
    """Decay rates of the second moment of adam and adamw; 0.999 if not given."""
    label_smoothing: tuple[float, ...] = ()
    """Shares of each label that are spread over all classes; 0 if not given."""
    schedule: training.ScheduleName = "constant"
    """Of the learning rate: constant; a cosine to 0; or a tenth after 60% of the steps and a hundredth after 80%."""
    warmup: int = 0
    """The number of first steps in which the learning rate rises from 0."""
    init: classifier.Init = "normal"
    """Initial weights: normal, or uniform as those of torch.nn.Linear."""
    init_scale: float = 1e-3
    """Standard deviation of normal initial weights."""
    keep: sweep.Keep = "last"
    """The weights of each cell: those after the last step, or the best on val of ten evaluations and the last."""
    steps: int = 2000
    """Minibatches each cell is trained on."""
    epochs: int = 0
    """Train for so many passes over train instead of --steps."""
    batch_size: int = 200
    """Examples in a minibatch."""
    sampling: Sampling = "replacement"
    """Draw from all each time, or every example once an epoch; or from blocks that lie together on a slow disk."""
    last_batch: LastBatch = "continued"
    """The last minibatch of an epoch: continued with the next epoch, kept though it is smaller, or dropped."""
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


def check(config: Config) -> None:
    """Raise a ValueError where flags contradict one another, before anything is read."""
    training.check_counts(steps=config.steps, batch_size=config.batch_size)
    if config.epochs < 0 or config.base_batch < 0:
        raise ValueError(f"--epochs and --base-batch must not be below 0, got {config.epochs} and {config.base_batch}")
    if config.refit and config.keep == "best":
        raise ValueError("--keep best chooses by a val that --refit trains on: give one of them")
    if config.shots and len(config.test) > 1:
        raise ValueError(f"--shots are scored on one --test, got {len(config.test)}")
    if config.val and config.folds:
        raise ValueError("--val and --folds are two ways to choose: give one of them")
    published = protocols.PROTOCOLS[config.protocol]
    if config.hold_out != published.get("hold_out", inputs.HELD_OUT) and (config.val or config.folds):
        raise ValueError("--hold-out is the share of a val that is held out of train: leave out --val and --folds")
    if config.choose == "one-se" and selection(config) != "accuracy":
        raise ValueError(f"--choose one-se is for --select accuracy, got {selection(config)}")
    if config.shots and config.folds:
        raise ValueError("--shots and --folds are two ways to draw train: give one of them")
    if config.tries != 1 and not config.shots:
        raise ValueError("--tries are those of --shots: give that, too")
    if config.shots < 0 or config.tries < 1:
        raise ValueError(f"--shots and --tries must be at least 1, got {config.shots} and {config.tries}")
    if config.search == "peak" and (config.folds or config.shots or config.choose != "best"):
        raise ValueError("--search peak is a way to choose by val alone: leave out --folds, --shots and --choose")
    if config.choose == "one-se" and config.shots:
        raise ValueError("--choose one-se and --shots are two ways to choose: give one of them")
    if not 0 < config.hold_out < 0.8:
        raise ValueError(f"--hold-out must lie between 0 and 0.8, got {config.hold_out:g}")
    if config.folds < 0 or config.folds == 1:
        raise ValueError(f"--folds must be at least 2, got {config.folds}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in [0, 2**32), got {config.seed}")
    if by_c(config) and min(config.C) <= 0:
        raise ValueError(f"--C must be above 0, got {min(config.C):g}")
    if config.refit and not published.get("refit") and (config.folds or config.shots):
        anyway = "--folds train the best cell on all of train" if config.folds else "--shots train it on those alone"
        raise ValueError(f"--refit is for a val: {anyway}")
    files(config)
    if config.solver in SOLVERS:
        _check_solver(config, published)
    else:
        _check_minibatches(config, published)


def _check_solver(config: Config, published: Mapping[str, Any]) -> None:
    """Raise unless the flags are those of a solver."""
    if config.certify and config.solver != "lbfgs":
        raise ValueError(f"--certify is for --solver lbfgs, got {config.solver}")
    for name in OF_MINIBATCHES:
        if getattr(config, name) not in (getattr(Config, name), published.get(name)):
            no, flag = "no-" if getattr(config, name) is False else "", name.replace("_", "-")
            optimizers = "sgd, momentum, nesterov, adam, adamw or rmsprop"
            raise ValueError(f"--{no}{flag} is for minibatches: add --solver {optimizers}")


def _check_minibatches(config: Config, published: Mapping[str, Any]) -> None:
    """Raise unless the flags are those of training on minibatches."""
    if config.certify:
        raise ValueError(f"--certify is for --solver lbfgs, got {config.solver}")
    if config.init == "uniform" and config.init_scale not in (Config.init_scale, published.get("init_scale")):
        raise ValueError("--init-scale is of normal weights: leave out --init uniform")
    if config.epochs and config.steps not in (Config.steps, published.get("steps")):
        of_protocol = f", {config.epochs} are those of --protocol {config.protocol}" if "epochs" in published else ""
        raise ValueError(f"--steps are for --epochs 0{of_protocol}: give one of them, got {config.steps}")
    if config.keep == "best" and config.folds:
        raise ValueError("--keep best chooses by a val, and --folds have none: --keep last is for them")
    training.check_axes(config.solver, _axes(config, published), flag="--solver")


def _axes(config: Config, published: Mapping[str, Any]) -> dict[str, Any]:
    """The axes of the optimizer, but for those that a protocol has for another one."""
    given = {axis: getattr(config, axis) for axis in OF_OPTIMIZER}
    return {
        axis: values
        for axis, values in given.items()
        if values != published.get(axis) or training.takes(config.solver, axis)
    }


def files(config: Config) -> inputs.Files:
    """The files that the command line names."""
    labels = config.train_labels, config.val_labels, config.test_labels
    return inputs.named(config.train, config.val, config.test, labels, names=config.names)


def read(config: Config) -> inputs.Input:
    """The files as one source, with train/val/test row indices."""
    return inputs.read(files(config), hold_out=config.hold_out, folds=config.folds, seed=config.seed)


def hyperparameters(config: Config, splits: Splits) -> Grid:
    """The grid that the command line names."""
    published = protocols.PROTOCOLS[config.protocol]
    if by_c(config):
        reg = tuple(float(as_c(config, splits, value)) for value in config.C)
    elif config.solver in SOLVERS:
        reg = config.reg if config.reg != published.get("reg") else ()
        reg = reg or probe.REG
    else:
        reg = config.reg or ((0.0,) if config.weight_decay else probe.REG)
    if config.solver not in SOLVERS:
        scale = config.batch_size / config.base_batch if config.base_batch else 1.0
        lr = [scale * value for value in config.lr or LEARNING_RATES]
        return Grid(lr, reg, (config.seed,), **_axes(config, published))
    if min(reg) <= 0:
        raise ValueError(f"--reg must be above 0 for --solver {config.solver}, got {min(reg):g}")
    return Grid((), reg, ())


def num_trained(config: Config, splits: Splits) -> float:
    """The number of examples that each cell trains on to be chosen: of folds, all parts but one."""
    if config.shots:
        return config.shots * splits.num_classes
    return len(splits.train) * (1 - 1 / config.folds if config.folds else 1)


def num_steps(config: Config, num_train: int) -> int:
    """The number of minibatches that each cell trains on, of so many examples."""
    if not config.epochs:
        return config.steps
    drawn = epoch_size(num_train, config.batch_size, config.last_batch, config.sampling) or num_train
    return config.epochs * -(-drawn // config.batch_size)


def by_c(config: Config) -> bool:
    """Test whether the penalty is named by scikit-learn's C.

    Raises:
      ValueError: reg is given as well, other than by the protocol.
    """
    published = protocols.PROTOCOLS[config.protocol]
    given = [name for name in ("reg", "C") if getattr(config, name) not in ((), published.get(name))]
    if len(given) > 1:
        raise ValueError("--reg and --C are two ways to name the penalty: give one of them")
    return given == ["C"] or (not given and "C" in published)


def as_c(config: Config, splits: Splits, value: float) -> float:
    """The C of a reg, or the reg of a C: either is one over the other times twice the number of examples.

    Of two classes, scikit-learn penalises one column of weights, which is the difference of two: half as much.
    """
    halved = splits.num_classes == 2 and config.solver != "ridge"
    return 1 / ((1 if halved else 2) * num_trained(config, splits) * value)


def selection(config: Config) -> str:
    """The metric that ranks the cells: where all classes weigh the same in training, they do so in selection."""
    return config.select or ("mean-per-class" if config.class_weight == "balanced" else "accuracy")
