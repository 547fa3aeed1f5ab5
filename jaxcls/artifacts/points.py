"""Plots of a search over points: a scatter over two axes, and parallel coordinates over all."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from jaxcls.artifacts.scales import ABOVE, AXIS_LABELS, colours_of, low_end, scale
from jaxcls.grid import REPLICATES
from jaxcls.result import SweepResult
from jaxcls.table import best_first, dropped


def scatter(ax: Axes, result: SweepResult, axes: tuple[str, str]) -> Axes:
    """Every cell at its values on two axes, coloured by the score that ranks it.

    Cells that halving dropped are small, with their score at that time; those that diverged are grey crosses.

    Args:
      ax: the Axes to draw on.
      result: of a search over points.
      axes: names of the axes across and down.
    """
    table, scores = result.table, result.table[result.column]
    across, down = (table[name] for name in axes)
    worst_first = best_first(table["rank"])[::-1]  # the best are drawn on top
    shown = worst_first[np.isfinite(scores[worst_first])]
    low, clipped = low_end(np.ma.masked_invalid(scores))
    size = np.where(dropped(table), 14, 45)
    points = ax.scatter(across[shown], down[shown], c=scores[shown], s=size[shown], cmap="viridis", vmin=low)
    if dropped(table).any():
        ax.scatter([], [], s=14, color="0.4", label="dropped")
    gone = ~np.isfinite(scores)
    if gone.any():
        ax.plot(across[gone], down[gone], "x", color="0.6", markersize=5, label="diverged")
    if result.best is not None:
        place = across[result.best], down[result.best]
        ax.scatter(*place, s=120, facecolors="none", edgecolors="red", linewidths=2, label="best")
    for values, set_scale in ((across, ax.set_xscale), (down, ax.set_yscale)):
        name, more = scale(values)
        set_scale(name, **more)
    ax.set(xlabel=AXIS_LABELS[axes[0]], ylabel=AXIS_LABELS[axes[1]])
    if ax.get_legend_handles_labels()[0]:
        ax.legend(**ABOVE)
    if shown.size:
        ax.figure.colorbar(points, ax=ax, label=result.criterion, extend="min" if clipped else "neither")
    return ax


def parallel_coordinates(ax: Axes, result: SweepResult) -> Axes:
    """A line for every cell over all axes with several values, coloured by the score that ranks it.

    Args:
      ax: the Axes to draw on.
      result: of a search over points.
    """
    table, scores = result.table, result.table[result.column]
    names = [name for name in result.grid.varied if name not in REPLICATES]
    heights = np.stack([_heights(table[name]) for name in names], axis=1)
    colours, clipped = colours_of(scores)
    for row in best_first(table["rank"])[::-1]:
        best, diverged = row == result.best, np.isnan(scores[row])
        colour = "red" if best else "0.8" if diverged else colours.to_rgba(scores[row])
        width = 2.5 if best else 0.6 if dropped(table)[row] else 1.4
        ax.plot(heights[row], color=colour, linewidth=width, label="best" if best else None)
    for k, name in enumerate(names):
        ax.axvline(k, color="0.3", linewidth=0.8)
        for height, text in ((-0.04, table[name].min()), (1.04, table[name].max())):
            ax.text(k, height, f"{text:.3g}", ha="center", va="top" if height < 0 else "bottom", fontsize=9)
    labels = [AXIS_LABELS[name] for name in names]
    ax.set(xticks=range(len(names)), xticklabels=labels, yticks=[], xlim=(-0.3, len(names) - 0.7), ylim=(-0.14, 1.14))
    ax.tick_params(axis="x", length=0)
    if result.best is not None:
        ax.legend(**ABOVE)
        ax.figure.colorbar(colours, ax=ax, label=result.criterion, extend="min" if clipped else "neither")
    return ax


def _heights(values: NDArray) -> NDArray[np.floating]:
    """Values of an axis from 0 to 1, by logarithms where they are far apart; 0 counts as a tenth of the least."""
    scaled = np.asarray(values, float)
    if scale(values)[0] != "linear":
        scaled = np.log(np.maximum(scaled, scaled[scaled > 0].min() / 10))
    return (scaled - scaled.min()) / (np.ptp(scaled) or 1.0)
