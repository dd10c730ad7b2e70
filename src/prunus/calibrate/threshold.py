"""The threshold that a wanted number of values exceeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError


def threshold_for(values: NDArray[np.float32], count: int) -> float:
    """A threshold that exactly ``count`` of ``values`` exceed (strictly): midway between the
    ``count``-th largest and the next one, so that rounding elsewhere changes nothing.

    Where these two are equal, the nearest possible number exceeds it, and of two equally near ones
    the smaller.

    Args:
        values: float32 ``[n]``, none below zero.
        count: 1 to n.

    Raises:
        PrunusError: ``count`` out of range.
    """
    if not 1 <= count <= len(values):
        raise PrunusError(f"{count} of {len(values)} values cannot exceed a threshold")
    falling = np.append(np.sort(values)[::-1], np.float32(0))  # thresholds are not negative
    tied = falling[count]
    if falling[count - 1] == tied:
        fewer, more = int((values > tied).sum()), int((values >= tied).sum())
        count = more if tied > 0 and more - count < count - fewer else fewer
    if count == 0:
        return float(falling[0])
    upper, lower = falling[count - 1], falling[count]
    middle = lower + (upper - lower) / 2
    return float(middle if middle < upper else lower)
