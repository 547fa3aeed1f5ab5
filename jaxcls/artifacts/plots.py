"""Plots of a sweep, each drawn on Axes that the caller gives."""

import itertools
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jaxcls import two_layer
from jaxcls.artifacts import points, weights
from jaxcls.artifacts.folder import replacing
from jaxcls.artifacts.scales import ABOVE, AXIS_LABELS, colours_of, low_end, scale
from jaxcls.data import Splits
from jaxcls.grid import REPLICATES, Grid, Points
from jaxcls.metrics import confusion
from jaxcls.result import SweepResult
from jaxcls.table import best_first, dropped

DPI = 120
MOST_TICKS = 24  # on an axis; with more values, only every second, third, ... is labelled
MOST_ANNOTATED = 16  # rows and columns of a heat map whose values are written into its cells
MOST_LABELLED = 8  # values of an axis that are all labelled
MOST_CHARACTERS = 44  # in a line of a title

Panel = tuple[NDArray[np.floating], NDArray[np.bool_] | None, str, str]  # values, marked, label and number


def heat_map(
    ax: Axes,
    grid: Grid,
    scores: NDArray[np.floating],
    *,
    axes: tuple[str, str] = ("lr", "reg"),
    best: int | None = None,
    marked: NDArray[np.bool_] | None = None,
    label: str = "",
    number: str = ".3f",
) -> Axes:
    """Heat map of a score over two axes of the grid: the maximum over all other axes.

    Args:
      ax: the Axes to draw on.
      grid: the grid.
      scores: one per cell, in grid order; NaN, drawn grey as the title says, where a cell diverged.
      axes: names of the axes down and across.
      best: the row to outline.
      marked: cells within one standard error of the best, to be marked by a dot; one value per cell.
      label: title of the map.
      number: the format of a score.
    """
    names = list(grid.axes)
    shape = [len(values) for values in grid.axes.values()]
    down, across = (np.asarray(grid.axes[name]) for name in axes)
    orders = np.argsort(down), np.argsort(across)
    others = tuple(k for k, name in enumerate(names) if name not in axes)
    values = np.nan_to_num(scores.reshape(shape), nan=-np.inf).max(axis=others)
    values = values if names.index(axes[0]) < names.index(axes[1]) else values.T
    values = np.ma.masked_invalid(values[np.ix_(*orders)])
    ax.set_facecolor("0.75")
    low, clipped = low_end(values)
    image = ax.imshow(values, cmap="viridis", aspect="auto", vmin=low)
    rows, columns = (range(0, length, -(-length // MOST_TICKS)) for length in values.shape)
    ax.set_yticks(rows, [f"{down[orders[0][k]]:.3g}" for k in rows])
    ax.set_xticks(columns, [f"{across[orders[1][k]]:.3g}" for k in columns], rotation=45, ha="right")
    key = ["grey: diverged"] if np.ma.is_masked(values) else []
    if max(values.shape) <= MOST_ANNOTATED:
        _annotate(ax, values, Normalize(*image.get_clim()), number)
    if best is not None:
        place = dict(zip(names, np.unravel_index(best, shape), strict=True))
        row, column = (np.argmax(order == place[name]) - 0.5 for order, name in zip(orders, axes, strict=True))
        ax.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor="red", linewidth=2.5, clip_on=False))
    if marked is not None:
        dots = np.asarray((~np.isnan(scores) & marked).reshape(shape).any(axis=others))
        dots = dots if names.index(axes[0]) < names.index(axes[1]) else dots.T
        rows_of, columns_of = np.nonzero(dots[np.ix_(*orders)])
        ax.plot(columns_of + 0.42, rows_of + 0.36, ".", color="red", markersize=3, scalex=False, scaley=False)
        key += ["red dot: within 1 SE"] if dots.any() else []
    title = "\n".join([label, *([", ".join(key)] if key else [])])
    ax.set(xlabel=AXIS_LABELS[axes[1]], ylabel=AXIS_LABELS[axes[0]], title=title)
    if values.count():
        ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03, extend="min" if clipped else "neither")
    return ax


def loss_curves(ax: Axes, result: SweepResult, *, points: int = 100) -> Axes:
    """Minibatch loss of every cell, averaged over each ``steps / points`` steps, coloured by validation accuracy."""
    steps = result.losses.shape[1]
    width = max(1, steps // points)
    whole = steps - steps % width
    with np.errstate(over="ignore"):  # in a cell about to diverge
        curves = result.losses[:, :whole].reshape(len(result.losses), -1, width).mean(axis=2)
    middle = (np.arange(curves.shape[1]) + 0.5) * width
    accuracy = result.table[result.column]
    colours, clipped = colours_of(accuracy)
    for row in np.argsort(np.nan_to_num(accuracy, nan=-1)):  # better cells are drawn on top
        colour = "0.75" if np.isnan(accuracy[row]) else colours.to_rgba(accuracy[row])
        ax.plot(middle, curves[row], color=colour, linewidth=1, alpha=0.8)
    if number := int(np.isnan(accuracy).sum()):
        ax.plot([], [], color="0.75", label=f"{number} diverged")
    if result.best is not None:
        cell = result.grid.cells()[result.best]
        label = ", ".join(f"{axis} {cell[axis]:.3g}" for axis in cell if axis not in REPLICATES)
        ax.plot(middle, curves[result.best], color="red", linewidth=2, label=f"best: {label}")
        ax.figure.colorbar(colours, ax=ax, label=result.criterion, extend="min" if clipped else "neither")
    last = np.clip(result.steps_trained // width, 1, curves.shape[1]) - 1
    falls = (result.table["diverged_at"] < 0) & (curves[np.arange(len(curves)), last] < curves[:, 0])
    fell = curves[falls][np.isfinite(curves[falls])]
    if fell.size and fell.min() > 0:  # cells that learn nothing are cut off rather than flatten the others
        ax.set_yscale("log" if fell.max() > 10 * fell.min() else "linear")
        ax.set_ylim(0.9 * fell.min(), 1.1 * fell.max())
    if ax.get_legend_handles_labels()[0]:
        ax.legend(**ABOVE)
    mean = f", mean of {width} steps" if width > 1 else ""
    ax.set(xlabel="step", ylabel=f"minibatch loss{mean}")
    return ax


def axis_curves(ax: Axes, result: SweepResult, axis: str) -> Axes:
    """Train score and the score that ranks the cells over the values of one axis, at the best of all others.

    With several replicates, the mean over them, with a band from the lowest to the highest; of tries or folds, with a
    band of one deviation.
    """
    table, shown = result.table, _best_ranked(result.table, [axis])
    values = np.unique(table[axis])
    others = [name for name in result.grid.axes if name not in REPLICATES]
    for name, label in (("train_accuracy", "train"), (result.column, "validation")):
        chosen = [table[shown & (table[axis] == value)][others] for value in values]
        alike = [table[table[others] == cell][name] for cell in chosen]  # the same cell of all replicates
        mean = np.array([np.mean(each) for each in alike])
        (line,) = ax.plot(values, mean, ".-", label=label)
        low, high = (np.array([of(each) for each in alike]) for of in (np.min, np.max))
        if name == "val_accuracy" and "val_deviation" in (table.dtype.names or ()):
            deviation = np.array([table["val_deviation"][shown & (table[axis] == value)][0] for value in values])
            low, high = mean - deviation, mean + deviation
        if name == result.column and result.within_one_se.any():
            within = [bool((shown & result.within_one_se & (table[axis] == value)).any()) for value in values]
            ax.plot(values[within], mean[within], "o", color=line.get_color(), fillstyle="none", label="within 1 SE")
        if (high > low).any():
            ax.fill_between(values, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    if result.best is not None:
        best = table[result.best][axis]
        ax.axvline(best, color="red", linewidth=1, label=f"best: {best:.3g}")
    name, more = scale(values) if len(values) > 2 else ("linear", {})
    ax.set_xscale(name, **more)
    if name == "symlog":
        ax.set_xlim(-more["linthresh"] / 4, 1.5 * values[-1])
    if len(values) <= MOST_LABELLED:
        ax.set_xticks(values, [f"{value:.4g}" for value in values], rotation=45, ha="right")
        ax.minorticks_off()
    ax.set(xlabel=AXIS_LABELS[axis], ylabel=result.criterion.removeprefix("validation "))
    ax.legend(**ABOVE)
    return ax


def history_curves(axes: Sequence[Axes], result: SweepResult, axis: str) -> None:
    """Loss, train and validation accuracy over the epochs, for the best cell at each value of one axis of the grid.

    Args:
      axes: the three Axes to draw on.
      result: the result of a sweep with a history.
      axis: name of the axis. A value at which every cell diverged is in the legend, without a curve.
    """
    history = result.history
    if history is None:
        raise ValueError("result must have a history: run the sweep with history=True")
    rows = np.flatnonzero(_best_ranked(result.table, [axis]))
    for k, row in enumerate(rows[np.argsort(result.table[axis][rows])]):
        value = result.table[axis][row]
        colour = colormaps["viridis"](0.95 * k / max(len(rows) - 1, 1))
        diverged = "" if result.table["rank"][row] else ", diverged"
        loss = np.where(diverged, np.nan, result.losses[row, history.step])
        curves = loss, history.train_accuracy[row], history.val_accuracy[row]
        for ax, curve in zip(axes, curves, strict=True):
            ax.plot(history.epoch, curve, color=colour, label=f"{value:.3g}{diverged}")
    start = float(np.nanmax(result.losses[:, 0]))
    if axes[0].get_ylim()[1] > 3 * start:  # a cell that nearly diverged must not flatten the others
        axes[0].set_ylim(0, 1.5 * start)
    for ax, name in zip(axes, ("minibatch loss", "train accuracy (minibatch)", "validation accuracy"), strict=True):
        ax.set(xlabel="epoch", title=name)
        if history.epoch[-1] > MOST_LABELLED:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].legend(title=AXIS_LABELS[axis], fontsize=8)


def save(folder: str | Path, result: SweepResult, splits: Splits) -> list[Path]:
    """Write the plots of a run; return their paths.

    ``path.png``, and for minibatches ``loss.png``; ``heatmap.png`` where several axes have several values; of points
    with several such axes ``points.png`` instead of both; ``history.png`` if the result has a history;
    ``confusion.png`` with a test set, and ``weights.png`` for the models of this package. Where every cell diverged,
    those that would be empty are left out.
    """
    figures = {}
    long = _long_axes(result)
    if isinstance(result.grid, Points) and len(long) > 1:
        figures["points.png"] = _points(result)
    elif long:
        if len(long) > 1:
            figures["heatmap.png"] = _heat_maps(result)
        if result.table["rank"].any():
            figures["path.png"] = _paths(result)
    if result.grid.lr and np.isfinite(result.losses[:, 1:]).any():
        figures["loss.png"] = _curves(loss_curves, result)
    if result.test is not None:
        figures["confusion.png"] = _confusion(result)
    if result.history is not None:
        figures["history.png"] = _histories(result)
    if isinstance(result.params, two_layer.Params):
        figures["weights.png"] = weights.of_net(np.asarray(result.params.W1), splits)
    elif isinstance(result.params, np.ndarray):
        figures["weights.png"] = weights.of_classes(np.asarray(result.params), splits)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a label in a script that the font has not
        for name, figure in figures.items():
            with replacing(Path(folder) / name) as partial:
                figure.set_dpi(DPI)
                FigureCanvasAgg(figure).print_png(partial)  # once, where savefig draws twice
    return [Path(folder) / name for name in figures]


def _heat_maps(result: SweepResult) -> Figure:
    """Train and validation accuracy over every pair of axes with more than one value."""
    assert isinstance(result.grid, Grid)
    axes = _long_axes(result)
    pairs = list(itertools.combinations(axes, 2))
    sizes = [
        (min(max(0.62 * axes[across] + 2, 4.5), 10), min(max(0.4 * axes[down] + 1.6, 3.5), 8)) for down, across in pairs
    ]
    widths, heights = zip(*sizes, strict=True)
    figure = Figure(figsize=(2 * max(widths), sum(heights)), layout="constrained")
    panels = figure.subplots(len(pairs), 2, squeeze=False, height_ratios=heights)
    for pair, row in zip(pairs, panels, strict=True):
        shown = _best_ranked(result.table, pair)
        others = [
            AXIS_LABELS[name] for name, values in result.grid.axes.items() if name not in pair and len(values) > 1
        ]
        over = "\n" + textwrap.fill(f"at the best {', '.join(others)}", MOST_CHARACTERS) if others else ""
        on_val: Panel = result.table[result.column], result.within_one_se, f"{result.criterion}{over}", ".3f"
        for ax, panel in zip(row, (_beside(result, over), on_val), strict=True):
            values, marked, label, number = panel
            values = np.where(shown, values, np.nan)  # the same cell in both panels
            heat_map(ax, result.grid, values, axes=pair, best=result.best, marked=marked, label=label, number=number)
    return figure


def _beside(result: SweepResult, over: str) -> Panel:
    """Values beside the scores on val: accuracy on train; or after halving, the steps of each cell."""
    table = result.table
    if not dropped(table).any():
        return table["train_accuracy"], None, f"train accuracy{over}", ".3f"
    steps = np.where(table["diverged_at"] >= 0, np.nan, result.steps_trained)
    return steps, None, f"steps trained{over}", ",.0f"


def _points(result: SweepResult) -> Figure:
    """A scatter over each pair of axes with more than one value, and parallel coordinates over more than two."""
    axes = list(_long_axes(result))
    pairs = list(itertools.combinations(axes, 2))
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    whole = len(axes) > 2
    figure = Figure(figsize=(5.2 * columns, 4.2 * (rows + whole)), layout="constrained")
    layout = figure.add_gridspec(rows + whole, columns)
    if whole:
        points.parallel_coordinates(figure.add_subplot(layout[0, :]), result)
    for k, (down, across) in enumerate(pairs):
        points.scatter(figure.add_subplot(layout[whole + k // columns, k % columns]), result, (across, down))
    return figure


def _long_axes(result: SweepResult) -> dict[str, int]:
    """Lengths of the axes with more than one value, but for replicates."""
    return {name: len(values) for name, values in result.grid.varied.items() if name not in REPLICATES}


def _paths(result: SweepResult) -> Figure:
    """A panel for each axis with more than one value."""
    axes = list(_long_axes(result))
    figure = Figure(figsize=(max(8, 4.2 * len(axes)), 4.5), layout="constrained")
    for name, ax in zip(axes, figure.subplots(1, len(axes), squeeze=False)[0], strict=True):
        axis_curves(ax, result, name)
    return figure


def confusion_matrix(ax: Axes, counts: NDArray[np.integer], names: Sequence[str]) -> Axes:
    """Shares of each class of the test set, in rows, that are predicted as each class, in columns.

    Args:
      ax: the Axes to draw on.
      counts: as `jaxcls.metrics.confusion` returns them, ``[C, C]``.
      names: of the classes.
    """
    names = [name.encode("utf-8", "replace").decode() for name in names]  # no font has half of a surrogate pair
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ticks = range(0, len(names), -(-len(names) // MOST_TICKS))
    ax.set_xticks(ticks, [names[k] for k in ticks], parse_math=False, rotation=45, ha="right")
    ax.set_yticks(ticks, [names[k] for k in ticks], parse_math=False)
    if len(names) <= MOST_ANNOTATED:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.6 else "black"
            ax.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    ax.set(xlabel="predicted", ylabel="label", title="test set")
    ax.figure.colorbar(image, ax=ax, label="share of the label", fraction=0.046, pad=0.03)
    return ax


def _confusion(result: SweepResult) -> Figure:
    assert result.test is not None
    size = min(max(5.0, 0.45 * len(result.class_names)), 10)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    confusion_matrix(figure.subplots(), confusion(result.test, len(result.class_names)), result.class_names)
    return figure


def _best_ranked(table: NDArray, axes: Sequence[str]) -> NDArray[np.bool_]:
    """Mask of the best ranked row for each combination of values on these axes."""
    order = best_first(table["rank"])
    first = np.unique(table[order][list(axes)], return_index=True)[1]
    return np.isin(np.arange(len(table)), order[first])


def _histories(result: SweepResult) -> Figure:
    """One row of curves for every axis with more than one value."""
    names = list(result.grid.varied) or ["lr"]
    figure = Figure(figsize=(12, 3.4 * len(names)), layout="constrained")
    for name, row in zip(names, figure.subplots(len(names), 3, squeeze=False), strict=True):
        history_curves(row, result, name)
    return figure


def _curves(draw: Callable[[Axes, SweepResult], Axes], result: SweepResult) -> Figure:
    figure = Figure(figsize=(8, 5), layout="constrained")
    draw(figure.subplots(), result)
    return figure


def _annotate(ax: Axes, values: np.ma.MaskedArray, norm: Normalize, number: str) -> None:
    for row, column in np.argwhere(~np.ma.getmaskarray(values)):
        colour = "white" if norm(values[row, column]) < 0.6 else "black"
        ax.text(column, row, format(values[row, column], number), ha="center", va="center", fontsize=8, color=colour)
