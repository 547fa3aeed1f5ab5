"""Pictures of a sweep. Each function draws on an Axes and returns it."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from jaxcls.data.splits import Splits
from jaxcls.grid import Grid
from jaxcls.results import replacing
from jaxcls.sweep import SweepResult

MOST_TICKS = 24  # on an axis; of more values, every second, third, ... is labelled
MOST_ANNOTATED = 16  # values are written into the cells of a map no wider and no higher than this


def heat_map(ax: Axes, grid: Grid, scores: NDArray[np.floating], *, best: int | None = None, label: str = "") -> Axes:
    """A score for every learning rate (down) and regularisation strength (across), the best over seeds.

    Args:
      ax: where to draw.
      grid: the grid.
      scores: one per cell, in grid order; NaN, drawn grey, where a cell diverged.
      best: the row to outline.
      label: what the scores are.
    """
    lr_order, reg_order = np.argsort(grid.lr), np.argsort(grid.reg)
    per_seed = scores.reshape(len(grid.lr), len(grid.reg), len(grid.seed))[np.ix_(lr_order, reg_order)]
    values = np.ma.masked_invalid(np.nan_to_num(per_seed, nan=-np.inf).max(axis=-1))
    ax.set_facecolor("0.75")
    low, clipped = _low_end(values)
    image = ax.imshow(values, cmap="viridis", aspect="auto", vmin=low)
    rows, columns = (range(0, length, -(-length // MOST_TICKS)) for length in values.shape)
    ax.set_yticks(rows, [f"{grid.lr[lr_order[k]]:.3g}" for k in rows])
    ax.set_xticks(columns, [f"{grid.reg[reg_order[k]]:.3g}" for k in columns], rotation=45, ha="right")
    ax.set(xlabel="regularisation strength", ylabel="learning rate", title=label)
    if max(values.shape) <= MOST_ANNOTATED:
        _annotate(ax, values, Normalize(*image.get_clim()))
    if best is not None:
        lr, reg, _ = np.unravel_index(best, (len(grid.lr), len(grid.reg), len(grid.seed)))
        corner = np.argmax(reg_order == reg) - 0.5, np.argmax(lr_order == lr) - 0.5
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2.5, clip_on=False))
    ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03, extend="min" if clipped else "neither")
    return ax


def loss_curves(ax: Axes, result: SweepResult, *, points: int = 100) -> Axes:
    """The minibatch loss of every cell over the steps, in means of ``steps / points``, coloured by val accuracy."""
    steps = result.losses.shape[1]
    width = max(1, steps // points)
    whole = steps - steps % width
    curves = result.losses[:, :whole].reshape(len(result.losses), -1, width).mean(axis=2)
    middle = (np.arange(curves.shape[1]) + 0.5) * width
    accuracy = result.table["val_accuracy"]
    low, clipped = _low_end(np.ma.masked_invalid(accuracy))
    colours = ScalarMappable(Normalize(low, np.nanmax(accuracy, initial=0.0)), cmap="viridis")
    for row in np.argsort(np.nan_to_num(accuracy, nan=-1)):  # better cells over worse ones
        colour = "0.75" if np.isnan(accuracy[row]) else colours.to_rgba(accuracy[row])
        ax.plot(middle, curves[row], color=colour, linewidth=1, alpha=0.8)
    if result.best is not None:
        lr, reg, _ = result.grid.cells()[result.best]
        ax.plot(middle, curves[result.best], color="red", linewidth=2, label=f"best: lr {lr:.3g}, reg {reg:.3g}")
        ax.legend(loc="upper right")
        ax.figure.colorbar(colours, ax=ax, label="validation accuracy", extend="min" if clipped else "neither")
    fell = curves[curves[:, -1] < curves[:, 0]]
    if fell.size and fell.min() > 0:  # cells that learn nothing leave the picture rather than press the others flat
        ax.set_yscale("log" if fell.max() > 10 * fell.min() else "linear")
        ax.set_ylim(0.9 * fell.min(), 1.1 * fell.max())
    ax.set(xlabel="step", ylabel=f"minibatch loss, mean of {width} steps", title="loss")
    return ax


def template(ax: Axes, weights: NDArray[np.floating], *, limit: float, label: str = "") -> Axes:
    """One class's weights as a picture: grey or colour at 0, ``limit`` and ``-limit`` at the ends of the scale.

    Args:
      ax: where to draw.
      weights: ``[height, width]``, or ``[height, width, 3]`` for colours.
      limit: the largest magnitude shown; the same for all classes, so that they compare.
      label: the class.
    """
    if weights.ndim == 3:
        ax.imshow(np.clip(0.5 + weights / (2 * limit), 0, 1))
    else:
        ax.imshow(weights, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(xticks=[], yticks=[], title=label)
    return ax


def weight_matrix(ax: Axes, W: NDArray[np.floating], class_names: tuple[str, ...]) -> Axes:
    """All weights, a row per class and a column per feature: for features that are no picture."""
    limit = float(np.abs(W).max()) or 1.0
    image = ax.imshow(W.T, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    if len(class_names) <= 2 * MOST_ANNOTATED:
        ax.set_yticks(range(len(class_names)), class_names)
    ax.set(xlabel="feature", ylabel="class", title="weights of the best cell")
    ax.figure.colorbar(image, ax=ax)
    return ax


def save(folder: str | Path, result: SweepResult, splits: Splits) -> list[Path]:
    """Write ``heatmap.png``, ``loss.png`` and, unless every cell diverged, ``weights.png``; the paths written."""
    figures = {"heatmap.png": _heat_maps(result), "loss.png": _losses(result)}
    if result.params is not None:
        figures["weights.png"] = _weights(np.asarray(result.params), splits)
    for name, figure in figures.items():
        with replacing(Path(folder) / name) as partial:
            figure.savefig(partial, dpi=120)
    return [Path(folder) / name for name in figures]


def _heat_maps(result: SweepResult) -> Figure:
    rows, columns = len(result.grid.lr), len(result.grid.reg)
    width, height = (min(max(0.62 * columns + 2, 4.5), 10), min(max(0.4 * rows + 1.6, 3.5), 8))
    figure = Figure(figsize=(2 * width, height), layout="constrained")
    train, val = figure.subplots(1, 2)
    heat_map(train, result.grid, result.table["train_accuracy"], best=result.best, label="train accuracy")
    heat_map(val, result.grid, result.table["val_accuracy"], best=result.best, label="validation accuracy")
    return figure


def _losses(result: SweepResult) -> Figure:
    figure = Figure(figsize=(8, 5), layout="constrained")
    loss_curves(figure.subplots(), result)
    return figure


def _weights(W: NDArray[np.floating], splits: Splits) -> Figure:
    if splits.pixels is None:
        figure = Figure(figsize=(9, 4), layout="constrained")
        weight_matrix(figure.subplots(), W, splits.class_names)
        return figure
    columns = min(5, splits.num_classes)
    rows = -(-splits.num_classes // columns)
    figure = Figure(figsize=(1.8 * columns + 0.8, 2.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    pictures = W[splits.pixels]  # [height, width, C], or [height, width, 3, C]
    limit = float(np.abs(pictures).max()) or 1.0
    for ax in axes.flat[splits.num_classes :]:
        ax.axis("off")
    for label, ax in zip(range(splits.num_classes), axes.flat, strict=False):
        template(ax, pictures[..., label], limit=limit, label=splits.class_names[label])
    if splits.pixels.ndim == 2:
        figure.colorbar(axes.flat[0].images[0], ax=axes, label="weight", shrink=0.8)
    return figure


def _low_end(values: np.ma.MaskedArray) -> tuple[float, bool]:
    """Where the colours begin, and whether scores lie below: a few cells at chance must not make all others equal."""
    scores = values.compressed()
    if not scores.size:
        return 0.0, False
    low = float(np.median(scores) - 2 * (scores.max() - np.median(scores)))
    return (low, True) if scores.min() < low < scores.max() else (float(scores.min()), False)


def _annotate(ax: Axes, values: np.ma.MaskedArray, norm: Normalize) -> None:
    for row, column in np.argwhere(~np.ma.getmaskarray(values)):
        colour = "white" if norm(values[row, column]) < 0.6 else "black"
        ax.text(column, row, f"{values[row, column]:.3f}", ha="center", va="center", fontsize=8, color=colour)
