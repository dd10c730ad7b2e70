"""What ``keep`` means: validation early, resolution to a count per image."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from prunus.errors import PrunusError, PrunusTypeError, shown

Keep = int | float


def check_keep(keep: object) -> Keep:
    """Return ``keep`` unchanged, or raise: an int >= 1 counts tokens per image, a float in (0, 1]
    is a share of the original count of that image.

    Raises:
        PrunusTypeError: a boolean or something that is no number.
        PrunusError: zero, negative, NaN, or a float above 1.
    """
    hint = "give an int >= 1 (visual tokens per image) or a float in (0, 1] (share of them)"
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise PrunusTypeError(f"keep={shown(keep)} is not a number: {hint}")
    if isinstance(keep, Integral):
        if keep < 1:
            raise PrunusError(f"keep={shown(keep)} keeps nothing: {hint}")
        return int(keep)
    share: Any = keep
    if not 0 < share <= 1:  # also false for NaN
        raise PrunusError(f"keep={shown(keep)} is out of range: {hint}")
    return float(share)


def resolve_keep(keep: Keep, original: int) -> int:
    """Visual tokens to keep of an image that has ``original`` of them: at least 1, at most all.

    A ratio is rounded down; a millionth of a token is added first, so that 1/9 of 576 is 64
    and not 63 by the rounding of floating point.
    """
    if isinstance(keep, int):
        return min(keep, original)
    return max(1, min(original, math.floor(keep * original + 1e-6)))
