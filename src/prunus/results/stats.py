"""Intervals and paired comparisons of answers to the same questions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError

_Z = 1.959963984540054  # two-sided 95 %


class Estimate(NamedTuple):
    """A value with its 95 % interval; shares in 0..1."""

    value: float
    low: float
    high: float


class Flips(NamedTuple):
    """Questions whose answer became wrong, and became right; means over seeds."""

    lost: float
    won: float


def wilson(right: float, total: int) -> Estimate:
    """Wilson's interval of a share ``right / total``.

    ``right`` may be a mean over several seeds; the interval then holds for one of them.

    Raises:
        PrunusError: no questions, or more right ones than there are.
    """
    if total < 1 or not 0 <= right <= total:
        raise PrunusError(f"{right} of {total} is no share")
    return wilson_of(right / total, total)


def wilson_of(share: float, total: float) -> Estimate:
    """The same of a ``share`` of ``total`` questions, which need be no whole number: as many
    independent ones as those that were asked are worth."""
    spread = _Z**2 / total
    center = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return Estimate(share, max(0.0, center - half), min(1.0, center + half))


def paired_difference(
    right: NDArray[np.float64], base: NDArray[np.float64], groups: NDArray[np.int64]
) -> Estimate:
    """Mean of ``right - base`` over the same questions, with a normal 95 % interval.

    Questions about one image share its luck, so the variance is taken between ``groups`` (image
    numbers): with one question per group it is the ordinary paired one.

    Args:
        right, base: ``[questions]`` float64, 1 for a right answer (or means over seeds).
        groups: ``[questions]`` int64.

    Raises:
        PrunusError: no questions, or arrays of different lengths.
    """
    if not len(right) or len(right) != len(base) or len(right) != len(groups):
        raise PrunusError(f"cannot pair {len(right)}, {len(base)} and {len(groups)} questions")
    change = right - base
    mean = float(change.mean())
    _, place = np.unique(groups, return_inverse=True)
    sums = np.bincount(place, weights=change - mean)
    count = len(sums)
    if count < 2:
        return Estimate(mean, -1.0, 1.0)  # one image says nothing about others
    variance = float((sums**2).sum()) / len(change) ** 2 * count / (count - 1)
    half = _Z * math.sqrt(variance)
    return Estimate(mean, max(-1.0, mean - half), min(1.0, mean + half))


def flips(right: NDArray[np.float64], base: NDArray[np.float64]) -> Flips:
    """How many answers changed against ``base`` in each direction."""
    change = right - base
    return Flips(float(-change[change < 0].sum()), float(change[change > 0].sum()))


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties counted half; NaN where there are
    only positives or only negatives. NaN scores are left out."""
    there = ~np.isnan(scores)
    scores, positive = scores[there], positive[there]
    wins = int(positive.sum())
    losses = positive.size - wins
    if not wins or not losses:
        return math.nan
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # mean ranks, from 1
    return float((ranks[positive].sum() - wins * (wins + 1) / 2) / (wins * losses))
