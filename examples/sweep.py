"""Train a whole lr × reg grid of softmax classifiers at once, and show what it found.

python examples/sweep.py                                     # handwritten digits, no download
python examples/sweep.py --preset cs231n                     # the published CIFAR-10 grid of CS231n
python examples/sweep.py --data features.npz --lr 0.01 0.1 1 --reg 0 1e-4 1e-3
"""

import argparse
import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import optax
import tyro
from tqdm import tqdm

import jaxcls
from jaxcls import classifier, data, memory, plots, results, sweep
from jaxcls.data import Source, Splits
from jaxcls.grid import Grid
from jaxcls.sweep import SweepResult
from jaxcls.train import Optimizer

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
}
MOST_ROWS = 100  # of the table, on the screen


@dataclass(frozen=True)
class Config:
    """Train a whole lr x reg grid of softmax classifiers at once, and show what it found."""

    preset: Literal["digits", "cs231n", "eecs498"] = "digits"
    """Where all the defaults below come from: the bundled digits, or one of the courses' published grids."""
    data: str = "digits"
    """digits, cifar10, or the path of an .npz with X, y (or X_train, y_train, X_val, y_val, X_test, y_test)."""
    protocol: Literal["standard", "cs231n", "eecs498"] = "standard"
    """How to prepare the data: each feature to mean 0 and deviation 1, or as a course prepares CIFAR-10."""
    data_dir: Path | None = None
    """The folder that holds CIFAR-10; downloaded once into the user's cache if not given."""
    lr: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Learning rates."""
    reg: tuple[float, ...] = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    """Strengths of the L2 penalty."""
    seeds: tuple[int, ...] = (0,)
    """Replicates: each has its own initial weights and its own minibatches."""
    steps: int = 2000
    """Minibatches each cell is trained on."""
    batch_size: int = 100
    """Examples in a minibatch, drawn with replacement."""
    optimizer: Literal["sgd", "momentum", "nesterov", "adam", "rmsprop"] = "sgd"
    """Made anew for every cell, from its learning rate."""
    init_scale: float = 1e-3
    """Standard deviation of the initial weights."""
    out: Path | None = None
    """The run's folder, which must be empty or not exist; runs/PRESET-DATE-TIME if not given."""


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
}


def main(config: Config) -> int:
    """Run the sweep; the exit code."""
    started = time.perf_counter()
    splits = load(config)
    grid = Grid(config.lr, config.reg, config.seeds)
    loaded_s = time.perf_counter() - started
    out = config.out or Path("runs") / time.strftime(f"{config.preset}-%Y%m%d-%H%M%S")
    options = {
        "batch_size": config.batch_size,
        "classifier": classifier.linear(init_scale=config.init_scale),
        "optimizer": OPTIMIZERS[config.optimizer],
    }
    with results.claim(out):
        announce(config, splits, grid, memory.estimate(splits, **options))
        with Progress() as progress:
            result = sweep.run(splits, grid, steps=config.steps, callback=progress, **options)
        written = time.perf_counter()
        record = {key: str(value) if isinstance(value, Path) else value for key, value in vars(config).items()}
        paths = results.write(out, result, splits, record) + plots.save(out, result, splits)
    seconds = {"data": loaded_s, "write": time.perf_counter() - written, "all": time.perf_counter() - started}
    report(result, paths, seconds)
    return 1 if result.best is None else 0


def load(config: Config) -> Splits:
    """Read the data that the command line names, and prepare it."""
    source = read(config)
    if source.note:
        print(f"note: {source.note}", file=sys.stderr)
    return data.PROTOCOLS[config.protocol](source)


def read(config: Config) -> Source:
    """Read the raw data."""
    if config.data == "digits":
        return data.load_digits()
    if config.data == "cifar10":
        return data.load_cifar10(config.data_dir)
    if config.data.endswith(".npz"):
        return data.load_npz(config.data)
    raise ValueError(f"--data must be digits, cifar10 or the path of an .npz, got {config.data}")


def announce(config: Config, splits: Splits, grid: Grid, need: memory.Memory) -> None:
    """Say what is about to happen."""
    sizes = ", ".join(f"{len(split.y):,} {role}" for role, split in splits.items())
    axes = f"{len(grid.lr)} lr x {len(grid.reg)} reg x {len(grid.seed)} seed"
    total = need.data + len(grid) * need.cell
    print(f"jaxcls    {jaxcls.__version__} with jax {jax.__version__}, on {results.device()}")
    print(f"data      {splits.name}: {sizes} examples")
    print(f"          {splits.num_features:,} features with the bias, {splits.num_classes} classes")
    print(f"grid      {axes} = {len(grid):,} cells")
    print(f"          {config.steps:,} steps of {config.batch_size} examples, {config.optimizer}")
    print(f"memory    about {megabytes(total)}, of it {megabytes(need.data)} data")


class Progress:
    """The bar: says when compiling is done, then follows the run. Silent when nobody watches."""

    def __enter__(self) -> "Progress":
        print("compiling", end=" ", flush=True)
        self.started, self.bar = time.perf_counter(), None
        return self

    def __call__(self, row: sweep.Figures) -> None:
        """Move on to where a sweep's callback says it is."""
        if self.bar is None:
            print(f"{time.perf_counter() - self.started:.1f} s", flush=True)
            self.cells = row["cells"]
            self.bar = tqdm(
                total=row["steps"] * row["cells"],
                desc="training",
                unit=" cell-steps",
                unit_scale=True,
                disable=not sys.stderr.isatty(),
                dynamic_ncols=True,
            )
        self.bar.update(row["step"] * row["cells"] - self.bar.n)
        diverged = f", {row['diverged']} diverged" if row["diverged"] else ""
        self.bar.set_postfix_str(f"loss {row['loss']:.4g}{diverged}", refresh=False)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def report(result: SweepResult, paths: list[Path], seconds: dict[str, float]) -> None:
    """Print the table, the best cell, where the time went and what was written."""
    table, best = result.table, result.best
    print(f"\n{'lr':>12} {'reg':>12} {'seed':>5} {'train acc':>10} {'val acc':>9} {'rank':>6}")
    shown = np.argsort(table, order=["lr", "reg", "seed"])
    if len(table) > MOST_ROWS:
        shown = np.argsort(np.where(table["rank"] > 0, table["rank"], len(table)))[:MOST_ROWS]
    for row in table[shown]:
        cell = f"{row['lr']:12.6g} {row['reg']:12.6g} {row['seed']:5d}"
        if row["rank"]:
            star = "  <- best" if row["rank"] == 1 else ""
            print(f"{cell} {row['train_accuracy']:10.4f} {row['val_accuracy']:9.4f} {row['rank']:6d}{star}")
        else:
            print(f"{cell}   diverged at step {row['diverged_at']}")
    if len(table) > MOST_ROWS:
        print(f"... the best {MOST_ROWS} of {len(table):,} cells; all are in {paths[0]}")

    if best is None:
        print("\nevery cell diverged: try lower learning rates")
    else:
        row = table[best]
        print(f"\nbest      lr {row['lr']:g}, reg {row['reg']:g}, seed {row['seed']}, by validation accuracy", end="")
        print("; ties go to the lower\n          validation loss, then to the order of the grid" if tied(table) else "")
        print(f"          {row['val_accuracy']:.4f} on val, {result.test_accuracy:.4f} on test, which was scored once")
        for axis, values in result.grid.beyond(best).items():
            tries = " ".join(f"{value:g}" for value in values)
            print(f"edge      the best {axis} is the last on its axis; a grid to try next: --{axis} {tries}")
    t = result.timings
    print(
        f"time      {seconds['all']:.1f} s: data {seconds['data']:.1f}, compile {t.compile_s:.1f}, "
        f"train {t.run_s:.1f}, evaluate {t.evaluate_s:.1f}, write {seconds['write']:.1f}"
    )
    print(f"speed     {result.losses.size / t.run_s:,.0f} cell-steps per second")
    print(f"wrote     {paths[0].parent}/")
    print(f"          {', '.join(path.name for path in paths[:3])}")
    print(f"          {', '.join(path.name for path in paths[3:])}")
    if best is not None:
        path = paths[0].with_name("best.safetensors")
        print("\nTo predict y for raw features X [N, d], in JAX (in torch: safetensors.torch):\n")
        print(results.reload_lines(path, "jax"))


def tied(table: np.ndarray) -> bool:
    """Whether another cell reached the best one's validation accuracy."""
    return int(np.sum(table["val_accuracy"] == np.nanmax(table["val_accuracy"]))) > 1


def megabytes(count: int) -> str:
    """Bytes, in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def parse(args: list[str]) -> Config:
    """Read the command line; what it leaves out comes from the preset it names."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--preset", default="digits")
    preset = first.parse_known_args(args)[0].preset
    return tyro.cli(Config, default=PRESETS.get(preset, Config()), args=args, description=__doc__)


if __name__ == "__main__":
    try:
        sys.exit(main(parse(sys.argv[1:])))
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
