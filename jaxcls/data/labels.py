"""Class numbers of labels as users have them, integers or text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHOWN = 5  # labels that a note names


def numbered(labels: Sequence[NDArray]) -> tuple[list[NDArray], tuple[str, ...], str]:
    """Number the classes of several arrays of labels in sorted order.

    Args:
      labels: ``[N]`` each, all integers not below 0, or all text.

    Returns:
      The class of each example, ``[N]`` each; the labels of the classes as text; and a note for the user where an
      integer label is not its class. Labels of another kind are returned as they are, without names, for
      `jaxcls.data.Splits` to reject.

    Example:
      >>> (y,), names, note = numbered([np.array([20, 0, 10, 0])])
      >>> y.tolist(), names, note
      ([2, 0, 1, 0], ('0', '10', '20'), 'the labels 0, 10, 20 are classes 0 to 2')
    """
    text, integers = (all(y.dtype.kind in kinds for y in labels) for kinds in ("U", "iu"))
    if not (text or integers) or any(y.ndim != 1 for y in labels):
        return list(labels), (), ""
    # In one dtype: numpy's common one of int64 and uint64 is a float.
    values = np.unique(np.concatenate(labels if text else [y.astype(np.int64) for y in labels]))
    if integers and (not values.size or values[0] < 0):
        return list(labels), (), ""
    names = tuple(map(str, values.tolist()))
    if integers and values[-1] == len(values) - 1:
        return list(labels), names, ""
    shown = ", ".join([*names[:SHOWN], *(["..."] if len(names) > SHOWN else [])])
    note = f"the labels {shown} are classes 0 to {len(names) - 1}" if integers else ""
    return [np.searchsorted(values, y) for y in labels], names, note
