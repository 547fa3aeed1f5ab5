"""Flags of the axes of a search: values, or a range from which points are drawn."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

from jaxcls.grid import Cells, Grid, Points

MOST_SAMPLES = 1_000_000


def _value(kind: Callable[[str], float], metavar: str) -> Any:
    """The constructor of a flag's value: a number, or the text of a range."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda args: args[0] if ":" in args[0] else kind(args[0]),
        is_instance=lambda value: isinstance(value, float | int | str),
        str_from_instance=lambda value: [str(value)],
    )


Number = Annotated[float | str, _value(float, "FLOAT|LOW:HIGH")]
Whole = Annotated[int | str, _value(int, "INT|LOW:HIGH")]


def cells(axes: Mapping[str, tuple[float | str, ...]], seeds: tuple[int, ...], samples: int | None) -> Cells:
    """The grid of these axes, or random points of them.

    Args:
      axes: values of each axis, or one range as ``1e-4:1``.
      seeds: replicates; the first is also that of the points.
      samples: the number of points; None for the grid.

    Raises:
      ValueError: there is a range and no number of points, or the reverse; a range among other values, or not one.

    Example:
      >>> print(cells({"lr": ("1e-3:1",), "reg": (0.0, 1e-3)}, (0,), samples=8))
      8 points of lr, reg x 1 seed
    """
    ranges = {axis: values for axis, values in axes.items() if any(isinstance(value, str) for value in values)}
    if samples is None:
        for axis, values in ranges.items():
            flag = f"--{axis.replace('_', '-')} {values[0]}"
            raise ValueError(f"{flag} is a range: say how many points to draw from it, as --samples 64")
        return Grid(**{**axes, "seed": seeds})  # type: ignore[arg-type]  # no ranges
    if not ranges:
        raise ValueError("--samples draws points from ranges: give one, as --lr 1e-4:1")
    if not 1 <= samples <= MOST_SAMPLES:
        raise ValueError(f"--samples must lie between 1 and {MOST_SAMPLES:,}, got {samples}")
    drawn = {axis: _range(axis, values) for axis, values in axes.items() if values}
    return replace(Points.random(samples, seed=seeds[0] if seeds else 0, **drawn), seed=seeds)


def _range(axis: str, values: tuple[float | str, ...]) -> tuple[float, float] | list[float]:
    """A range or a list of values, as `Points.random` takes them."""
    if not any(isinstance(value, str) for value in values):
        return [value for value in values if not isinstance(value, str)]
    kind: Callable[[str], float] = int if axis == "hidden" else float
    try:
        (text,) = values
        low, high = str(text).split(":")
        return kind(low), kind(high)
    except ValueError:
        given = " ".join(map(str, values))
        raise ValueError(f"--{axis.replace('_', '-')} must be values or one range, as 1e-4:1, got {given}") from None
