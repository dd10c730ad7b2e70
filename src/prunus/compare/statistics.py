"""Whether a difference is one: clustered intervals, paired tests, and what many at once allow.

Questions about one image share its luck, so images are what is drawn anew: variances are taken
between them, and signs are flipped image by image. How often intervals hold what they should is
tried in ``tests/compare/test_coverage.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunus.compare.student import Z, two_sided
from prunus.errors import PrunusError
from prunus.results.stats import Estimate, Flips, flips, wilson_of

#: Steps of the grid on which sums of images are added, where they lie on no coarser one.
_STEPS = 50_000

Right = NDArray[np.float64]
"""``[seeds, questions]``, 1 where an answer is right."""


class Difference(NamedTuple):
    """A mean difference with its 95 % interval, the two-sided ``p`` of there being none, and how
    many answers changed each way, means over seeds."""

    estimate: Estimate
    p: float
    flips: Flips


def share(right: NDArray[np.float64], images: NDArray[np.int64]) -> Estimate:
    """The share of right answers, with Wilson's 95 % interval of as many independent questions as
    these are worth (Korn and Graubard, Survey Methodology 24, 1998; Wilson's in the place of theirs
    as Franco et al., J. Surv. Stat. Methodol. 7, 2019, found best).

    They are worth their number over the design effect: the variance between images over that of
    independent questions. It is taken to be at least 1, because what is less is chance, and widened
    by Student's quantile of as many images less one over the normal one. Where every question has
    an image of its own this is Wilson's interval; where all are about one, nothing is known of
    others.

    Args:
        right: ``[questions]``, 1 where an answer is right, or means over seeds: the interval then
            holds for one of them.
        images: ``[questions]``: which image each is about.
    """
    total = len(right)
    value = float(right.mean())
    _, place = np.unique(images, return_inverse=True)
    count = int(place.max()) + 1
    if count == total:
        return wilson_of(value, total)
    if count == 1:
        return Estimate(value, 0.0, 1.0)
    effect, alone = 1.0, value * (1 - value) / total
    if alone > 0:
        spread = np.bincount(place, weights=right - value)
        between = float((spread**2).sum()) / total**2 * count / (count - 1)
        effect = max(1.0, between / alone)
    return wilson_of(value, total / effect * (Z / two_sided(count - 1)) ** 2)


def difference(ours: Right, theirs: Right, images: NDArray[np.int64]) -> Difference:
    """``ours`` against ``theirs`` on the same questions, seeds averaged on either side.

    Args:
        ours, theirs: each ``[seeds, questions]``, of any number of seeds.
        images: ``[questions]`` int64: which image each is about.

    Raises:
        PrunusError: no questions, or not the same number of them.
    """
    if not ours.shape[1] == theirs.shape[1] == len(images) > 0:
        raise PrunusError(
            f"cannot pair {ours.shape[1]}, {theirs.shape[1]} and {len(images)} questions"
        )
    change = ours.mean(axis=0) - theirs.mean(axis=0)
    pairs = [flips(one, other) for one in ours for other in theirs]
    changed = Flips(*(float(np.mean(column)) for column in zip(*pairs, strict=True)))
    p = p_value(change, images, math.lcm(len(ours), len(theirs)))
    return Difference(mean_change(change, images), p, changed)


def mean_change(
    change: NDArray[np.float64], images: NDArray[np.int64], level: float = 0.95
) -> Estimate:
    """The mean ``change`` of questions, with Student's interval of the ``level`` that is wanted,
    as of :func:`spread_of`.
    """
    value, center, error, freedom = spread_of(change, images)
    if freedom == 0:
        return Estimate(value, -1.0, 1.0)  # one image says nothing about others
    half = two_sided(freedom, level) * error
    low, high = min(value, center - half), max(value, center + half)
    return Estimate(value, max(-1.0, low), min(1.0, high))


class Spread(NamedTuple):
    """A mean change ``value``; the ``center`` of its interval, with standard ``error`` and degrees
    of ``freedom``, 0 where there is but one image."""

    value: float
    center: float
    error: float
    freedom: int


def spread_of(change: NDArray[np.float64], images: NDArray[np.int64]) -> Spread:
    """How far the mean ``change`` of questions may be off.

    Where few answers change, the plain interval is far too narrow, and one of no width where none
    does. So one question that was lost and one that was won are added, each about an image of its
    own, before mean and variance are taken (Bonett and Price, J. Educ. Behav. Stat. 37, 2012, who
    have no images), and Student's quantile stands for the normal one, of as many degrees of freedom
    as there are images less one.
    """
    _, place = np.unique(images, return_inverse=True)
    count, value = int(place.max()) + 1, float(change.mean())
    total = len(change) + 2
    center = float(change.sum()) / total
    spread = np.bincount(place, weights=change - center)
    squares = float((spread**2).sum()) + (1 - center) ** 2 + (1 + center) ** 2
    variance = squares / total**2 * (count + 2) / (count + 1)
    return Spread(value, center, math.sqrt(variance), count - 1)


def p_value(change: NDArray[np.float64], images: NDArray[np.int64], parts: int = 1) -> float:
    """Two-sided probability of a mean ``change`` at least as far from 0, if there is no difference:
    of all ways to flip the signs of the images' sums, the share that reaches as far.

    All 2^n ways are counted, image by image, by the sums that they come to. Sums that lie on no
    grid of at most 50,000 steps are rounded to one, and what rounding might have kept from reaching
    as far is counted as if it did.

    Args:
        change: ``[questions]`` float64, whole multiples of 1 / ``parts``.
        images: ``[questions]`` int64.
    """
    _, place = np.unique(images, return_inverse=True)
    sums = np.abs(np.bincount(place, weights=change))
    reached = abs(float(change.sum()))
    scale: float = parts
    if not np.allclose(sums * parts, np.round(sums * parts), atol=1e-6):
        scale = math.inf
    exact = float(sums.sum()) * scale <= _STEPS
    if not exact:
        scale = _STEPS / float(sums.sum())
    steps = np.round(sums * scale).astype(np.int64)
    steps = steps[steps > 0]
    whole = int(steps.sum())
    ways = np.zeros(2 * whole + 1)  # the share of ways that come to each sum, -whole..whole
    ways[whole] = 1.0
    for step in steps.tolist():
        half = ways / 2
        ways = np.zeros_like(ways)
        ways[step:] += half[:-step]
        ways[:-step] += half[step:]
    least = reached * scale - (1e-6 if exact else len(sums))
    from_ends = max(0, whole - math.ceil(least) + 1)
    if from_ends > whole:
        return 1.0
    return float(min(1.0, 2 * ways[:from_ends].sum()))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction: ``p`` values of a family of tests by name, so that the chance of any false
    one among those below a level is at most that level, however the tests hang together.

    Raises:
        PrunusError: no probability.
    """
    if any(not 0 <= p <= 1 for p in values.values()):
        raise PrunusError("p values lie in 0..1")
    found: dict[str, float] = {}
    reached = 0.0
    for place, name in enumerate(sorted(values, key=lambda name: (values[name], name))):
        reached = max(reached, min(1.0, (len(values) - place) * values[name]))
        found[name] = reached
    return {name: found[name] for name in values}


def stacked(rows: Sequence[Sequence[bool]]) -> Right:
    """``[seeds, questions]`` of whether answers were right."""
    return np.array(rows, dtype=np.float64)
