"""The quantile of Student's distribution that intervals need, for whole degrees of freedom."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

Z = 1.959963984540054  # of the normal distribution, two-sided 95 %
#: From so many degrees of freedom on, the first term of its expansion is exact to six digits.
_MANY = 1000


@cache
def two_sided(freedom: int, level: float = 0.95) -> float:
    """The ``t`` within which a value of ``freedom`` >= 1 degrees of freedom is, either way, in a
    share ``level`` of cases."""
    if freedom >= _MANY:
        z = Z if level == 0.95 else NormalDist().inv_cdf((1 + level) / 2)
        return z * (1 + (z**2 + 1) / (4 * freedom))
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, freedom) < level else (low, angle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """The probability of less than ``sqrt(freedom) * tan(angle)`` either way: the finite sums of
    Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom == 1:
        return 2 * angle / math.pi
    odd = freedom % 2
    term = total = cosine if odd else 1.0
    for step in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (step - 1) / step
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
