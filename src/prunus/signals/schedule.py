"""Which share of the tokens is left behind each layer, and the same curve on another depth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def left(deleted: Sequence[int], tokens: int) -> tuple[float, ...]:
    """Share of ``tokens`` that is left behind each layer."""
    return tuple((tokens - gone) / tokens for gone in itertools.accumulate(deleted))


def stretched(shares: Sequence[float], depth: int) -> tuple[float, ...]:
    """``shares`` behind each layer of a decoder, for the layers but the last of one with ``depth``,
    at the same part of the way and in a straight line between."""
    points, found = (1.0, *shares), []
    for layer in range(1, depth):
        below, part = divmod(layer * len(shares), depth)
        found.append(points[below] + part / depth * (points[below + 1] - points[below]))
    return tuple(found)
