"""Checks that computed measures lie in their mathematical ranges."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from clm_data.eval.errors import EditError
from clm_data.eval.intervals import FloatArray

_TOLERANCE = 1e-6
"""How far rounding may take a value out of its range, relative to the bound if it is over 1."""


class AnalysisError(EditError):
    """A computation gave an impossible result: NaN, or a value outside its mathematical range."""


def in_range(
    values: ArrayLike, low: float, high: float, what: str, *, allow_nan: bool = False
) -> FloatArray:
    """Clip values that rounding took out of their range.

    Args:
        values: Any shape; a scalar gives an array of shape ().
        low: Lower bound.
        high: Upper bound; may be infinite.
        what: Name of the measure, for the error.
        allow_nan: Keep NaN, which represents an undefined value, instead of raising.

    Raises:
        AnalysisError: A value is NaN or infinite, or out of range by more than rounding.
    """
    array = np.asarray(values, dtype=np.float64)
    below = low - _TOLERANCE * max(1.0, abs(low))
    above = high + _TOLERANCE * max(1.0, abs(high))
    valid = np.isfinite(array) & (array >= below) & (array <= above)
    if allow_nan:
        valid |= np.isnan(array)
    if not valid.all():
        worst = float(array[~valid].flat[0])
        raise AnalysisError(f"{what} is {worst:.6g}, which is not between {low:g} and {high:g}")
    return np.asarray(np.clip(array, low, high))
