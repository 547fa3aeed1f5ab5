"""Names of axes and scales of colours, shared by the plots."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

AXIS_LABELS = {
    "lr": "learning rate",
    "reg": "regularisation strength",
    "weight_decay": "weight decay",
    "momentum": "momentum",
    "b1": "decay rate of the first moment",
    "b2": "decay rate of the second moment",
    "decay": "decay of the learning rate, an epoch",
    "label_smoothing": "label smoothing",
    "hidden": "hidden units",
    "seed": "seed",
    "fold": "fold",
}
ABOVE = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 4, "fontsize": 8}  # a legend that hides nothing
LEAST_SPAN = 0.05  # of a colour scale: accuracies a little apart must not look like good and bad


def low_end(values: np.ma.MaskedArray) -> tuple[float, bool]:
    """Lower end of the colour scale, and whether it clips: a few cells at chance must not make all others equal.

    Example:
      >>> low_end(np.ma.masked_invalid([0.25, 0.75, 0.875, np.nan]))
      (0.5, True)
    """
    scores = values.compressed()
    if not scores.size:
        return 0.0, False
    low = float(np.median(scores) - max(2 * (scores.max() - np.median(scores)), LEAST_SPAN))
    return (low, True) if scores.min() < low else (float(min(scores.min(), scores.max() - LEAST_SPAN)), False)


def colours_of(scores: NDArray[np.floating]) -> tuple[ScalarMappable, bool]:
    """The colours of some scores, NaN for none, and whether their scale clips, as that of `low_end`."""
    low, clipped = low_end(np.ma.masked_invalid(scores))
    return ScalarMappable(Normalize(low, np.nanmax(scores, initial=0.0)), cmap="viridis"), clipped


def scale(values: NDArray) -> tuple[str, dict[str, float]]:
    """The scale of an axis with these values, as ``Axes.set_xscale`` takes it: logarithmic if they are far apart.

    Example:
      >>> scale(np.array([0.1, 1.0])), scale(np.array([0.0, 0.1, 1.0])), scale(np.array([1.0, 2.0]))
      (('log', {}), ('symlog', {'linthresh': 0.1}), ('linear', {}))
    """
    positive = values[values > 0]
    if not positive.size or positive.max() < 10 * positive.min():
        return "linear", {}
    return ("log", {}) if values.min() > 0 else ("symlog", {"linthresh": float(positive.min())})
