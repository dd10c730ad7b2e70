"""Whether a difference is one: clustered paired tests, and what many of them at once allow.

Questions about one image share its luck, so images are what is drawn anew: variances are taken
between them, and signs are flipped image by image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError
from prunus.results.stats import Estimate, Flips, flips, paired_difference

#: Up to so many images that differ, all signs are tried; beyond, the normal approximation holds.
EXACT = 12

Right = NDArray[np.float64]
"""``[seeds, questions]``, 1 where an answer is right."""


class Difference(NamedTuple):
    """A mean difference with its 95 % interval, the two-sided ``p`` of there being none, and how
    many answers changed each way, means over seeds."""

    estimate: Estimate
    p: float
    flips: Flips


def difference(ours: Right, theirs: Right, images: NDArray[np.int64]) -> Difference:
    """``ours`` against ``theirs`` on the same questions, seeds averaged on either side.

    Args:
        ours, theirs: each ``[seeds, questions]``, of any number of seeds.
        images: ``[questions]`` int64: which image each is about.

    Raises:
        PrunusError: no questions, or not the same number of them.
    """
    mean, base = ours.mean(axis=0), theirs.mean(axis=0)
    estimate = paired_difference(mean, base, images)
    pairs = [flips(one, other) for one in ours for other in theirs]
    changed = Flips(*(float(np.mean(column)) for column in zip(*pairs, strict=True)))
    return Difference(estimate, p_value(mean - base, images), changed)


def p_value(change: NDArray[np.float64], images: NDArray[np.int64]) -> float:
    """Two-sided probability of a mean ``change`` at least as far from 0, if there is no difference.

    Where at most :data:`EXACT` images differ, the share of all ways to flip the signs of their
    sums; else by the normal distribution, with the variance between images, but never less than
    these ways allow (where all images move alike, a variance says nothing).

    Args:
        change: ``[questions]`` float64; images: ``[questions]`` int64.
    """
    _, place = np.unique(images, return_inverse=True)
    sums = np.bincount(place, weights=change)
    moved = sums[np.abs(sums) > 1e-12]
    if len(moved) <= EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(moved))))
        reached = np.abs(signs @ moved) if len(moved) else np.zeros(1)
        return float((reached >= abs(moved.sum()) - 1e-9).mean())
    count, mean = len(sums), float(change.mean())
    spread = np.bincount(place, weights=change - mean)
    variance = float((spread**2).sum()) / len(change) ** 2 * count / (count - 1)
    least = 2.0 ** (1 - len(moved))  # all signs as they are, or all the other way round
    if variance == 0:
        return least
    return max(least, math.erfc(abs(mean) / math.sqrt(2 * variance)))


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
