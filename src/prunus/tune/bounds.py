"""What so many questions can say of a loss: bounds, chances, and how many more it takes.

A loss is the share of questions that the dense model answers right and the pruned one does not,
less those that it wins: what :func:`prunus.compare.statistics.spread_of` calls a change, with the
other sign. Standard errors are those between images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from prunus.compare.statistics import spread_of
from prunus.compare.student import Z, two_sided

#: All that is said here holds with it, together, unless another is named.
LEVEL = 0.95


@dataclass(frozen=True)
class Loss:
    """A mean loss ``value`` of ``questions``; the ``center`` of its bounds, with standard ``error``
    and degrees of ``freedom`` (images less one)."""

    value: float
    center: float
    error: float
    freedom: int
    questions: int

    @property
    def variance(self) -> float:
        """Of one question, if they were independent."""
        return self.error**2 * self.questions

    def interval(self, tests: float = 1, level: float = LEVEL) -> tuple[float, float]:
        """Two-sided bounds that hold for ``tests`` of them at once (Bonferroni)."""
        if self.freedom == 0:
            return -1.0, 1.0
        half = two_sided(self.freedom, 1 - (1 - level) / tests) * self.error
        low, high = self.center - half, self.center + half
        return max(-1.0, min(self.value, low)), min(1.0, max(self.value, high))

    def chance(self, bound: float, questions: int) -> float:
        """The probability that a further ``questions`` will show a loss of at most ``bound``: that
        their upper bound is no larger. Where no outcome could, that the loss is at most so large.
        """
        if self.freedom == 0:
            return 0.5
        ahead = self.error * math.sqrt(self.questions / questions)
        if least_upper(questions) > bound:
            ahead = 0.0
        there = bound - self.center - Z * ahead
        return NormalDist().cdf(there / math.hypot(self.error, ahead))

    def needed(self, bound: float) -> int | None:
        """About how many questions would show a loss of at most ``bound``, if it is what it seems;
        None: none would."""
        if self.value >= bound:
            return None
        seen = math.ceil(Z**2 * self.variance / (bound - self.value) ** 2)
        return max(seen, least_questions(bound))


def loss_of(change: NDArray[np.float64], images: NDArray[np.int64]) -> Loss:
    """The loss that changed answers mean: ``change`` is +1 of each that was won, -1 of each lost;
    ``images`` says which image each question is about."""
    value, center, error, freedom = spread_of(change, images)
    return Loss(-value, -center, error, freedom, len(change))


def least_upper(questions: int, images: int | None = None) -> float:
    """The upper bound if no answer changes at all, which is the least that there is."""
    images = questions if images is None else images
    if images < 2:
        return 1.0
    error = math.sqrt(2 * (images + 2) / (images + 1)) / (questions + 2)
    return min(1.0, two_sided(images - 1) * error)


def least_questions(bound: float) -> int:
    """How many questions, each about an image of its own, show a loss of at most ``bound`` if no
    answer changes."""
    count = max(2, math.floor(Z * math.sqrt(2) / bound) - 4)
    while least_upper(count) > bound:
        count += 1
    return count


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """A median with an interval that holds it in 95 % of cases or more, whatever the distribution:
    from one of the ordered values to another, by the binomial distribution of how many lie below.
    Of fewer than six values it is from the first to the last, which hold it less often."""
    ordered, count = sorted(values), len(values)
    aside, tail = 0, 0.5**count
    while 2 * (tail + math.comb(count, aside + 1) * 0.5**count) <= 1 - LEVEL:
        aside += 1
        tail += math.comb(count, aside) * 0.5**count
    return float(np.median(ordered)), ordered[aside], ordered[count - 1 - aside]
