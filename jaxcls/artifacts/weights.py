"""Pictures of weights: of each class, or of each hidden unit."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jaxcls.data import Splits

MOST_UNITS = 100  # hidden units shown as images
MOST_NAMES = 60  # of the rows of a weight matrix; with more, only every second, third, ... is named


def template(ax: Axes, weights: NDArray[np.floating], *, limit: float, label: str = "") -> Axes:
    """Weights of one class as an image, on a scale from ``-limit`` to ``limit``.

    Args:
      ax: the Axes to draw on.
      weights: ``[height, width]``, or ``[height, width, 3]`` for colours.
      limit: the largest magnitude shown; the same for all classes makes them comparable.
      label: the class.
    """
    if weights.ndim == 3:
        ax.imshow(np.clip(0.5 + weights / (2 * limit), 0, 1))
    else:
        ax.imshow(weights, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(xticks=[], yticks=[])
    ax.set_title(label, parse_math=False)  # a class may be called $
    return ax


def weight_matrix(ax: Axes, W: NDArray[np.floating], names: tuple[str, ...], *, label: str = "class") -> Axes:
    """Weight matrix, a row per class or hidden unit and a column per feature: for features that are not images."""
    limit = float(np.abs(W).max()) or 1.0
    image = ax.imshow(W.T, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    rows = range(0, len(names), -(-len(names) // MOST_NAMES))
    ax.set_yticks(
        rows, [names[k] for k in rows], parse_math=False, fontsize="medium" if len(names) <= 20 else "x-small"
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="feature", ylabel=label, title="weights of the best cell")
    ax.figure.colorbar(image, ax=ax)
    return ax


def hidden_units(ax: Axes, W1: NDArray[np.floating], pixels: NDArray[np.integer]) -> Axes:
    """First-layer weights of each hidden unit as an image, scaled by their largest magnitude.

    Args:
      ax: the Axes to draw on.
      W1: ``[D, H]``; of more than 100 units, those of the largest norm are shown.
      pixels: as in `Splits`.
    """
    norms = np.linalg.norm(W1, axis=0)
    shown = np.sort(np.argsort(-norms)[:MOST_UNITS])
    columns = math.ceil(math.sqrt(len(shown)))
    height, width = pixels.shape[:2]
    shape = (-(-len(shown) // columns) * (height + 1) - 1, columns * (width + 1) - 1, *pixels.shape[2:])
    canvas = np.full(shape, np.nan if pixels.ndim == 2 else 1.0)
    for k, unit in enumerate(shown):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        picture = W1[:, unit][pixels]
        canvas[top : top + height, left : left + width] = 0.5 + picture / (2 * np.abs(picture).max() or 1.0)
    if pixels.ndim == 2:
        ax.imshow(canvas, cmap="RdBu_r", vmin=0, vmax=1, interpolation="nearest")
    else:
        ax.imshow(canvas, interpolation="nearest")
    some = "" if len(shown) == W1.shape[1] else f"the {len(shown)} largest of "
    ax.set(xticks=[], yticks=[], title=f"first-layer weights of the best net: {some}{W1.shape[1]} hidden units")
    return ax


def of_net(W1: NDArray[np.floating], splits: Splits) -> Figure:
    """A net's first layer, ``[D, H]``: `hidden_units` of pictures, else `weight_matrix`."""
    pictures = splits.pixels is not None
    figure = Figure(figsize=(8, 8) if pictures else (9, 4), layout="constrained")
    if splits.pixels is not None:
        hidden_units(figure.subplots(), W1, splits.pixels)
    else:
        weight_matrix(figure.subplots(), W1, tuple(str(unit) for unit in range(W1.shape[1])), label="hidden unit")
    return figure


def of_classes(W: NDArray[np.floating], splits: Splits) -> Figure:
    """A linear classifier's weights, ``[D, C]``: a `template` a class of pictures, else `weight_matrix`."""
    if splits.pixels is None:
        figure = Figure(figsize=(9, min(max(4, 0.14 * splits.num_classes), 9)), layout="constrained")
        weight_matrix(figure.subplots(), W[:-1], splits.class_names)  # without the bias
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
