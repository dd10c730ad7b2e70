"""The quantile of Student's distribution that 95 % intervals need, for whole degrees of freedom."""

from __future__ import annotations

import math
from functools import cache

Z = 1.959963984540054  # of the normal distribution, two-sided 95 %
#: From so many degrees of freedom on, the first term of its expansion is exact to six digits.
_MANY = 1000


@cache
def two_sided(freedom: int) -> float:
    """The ``t`` which a value of ``freedom`` >= 1 degrees of freedom is beyond in 5 % of cases,
    either way."""
    if freedom >= _MANY:
        return Z * (1 + (Z**2 + 1) / (4 * freedom))
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, freedom) < 0.95 else (low, angle)
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
