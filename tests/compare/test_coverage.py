"""How often 95 % intervals hold the truth: a simulation with few images and few changed answers.

Images have luck of their own (a beta distribution with the given correlation between questions of
one image). In brackets: what the interval that is replaced held, which is why it was.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from prunus.compare.statistics import mean_change, p_value, share
from prunus.results.stats import paired_difference, wilson

TIMES = 1000
QUESTIONS = 5  # about each image
#: Two and a half deviations of a share of so many trials that is 0.95.
ERROR = 2.5 * math.sqrt(0.95 * 0.05 / TIMES)

Numbers = NDArray[np.float64]


def lucks(rng: np.random.Generator, count: int, mean: float, alike: float) -> Numbers:
    """``[TIMES, count]`` probabilities, one of each image."""
    if alike == 0:
        return np.full((TIMES, count), mean)
    scale = (1 - alike) / alike
    return rng.beta(mean * scale, (1 - mean) * scale, (TIMES, count))


def changes(count: int, lost: float, won: float, alike: float) -> Numbers:
    """``[TIMES, count * QUESTIONS]``: -1 with probability ``lost``, else 1 with ``won``."""
    rng = np.random.default_rng(count)
    odds = np.repeat(lucks(rng, count, lost, alike), QUESTIONS, axis=1)
    drawn = rng.uniform(size=odds.shape)
    return np.where(drawn < odds, -1.0, np.where(drawn > 1 - won, 1.0, 0.0))


@pytest.mark.parametrize(
    ("count", "lost", "won", "alike"),
    [
        (13, 0.02, 0.00, 0.1),  # [67 %]
        (13, 0.05, 0.02, 0.1),  # [89 %]
        (13, 0.10, 0.03, 0.3),  # [86 %]
        (20, 0.02, 0.00, 0.1),  # [81 %]
        (20, 0.05, 0.02, 0.1),  # [90 %]
        (40, 0.02, 0.00, 0.1),  # [87 %]
        (40, 0.10, 0.03, 0.3),  # [93 %]
        (40, 0.30, 0.05, 0.3),
    ],
)
def test_differences_lie_in_their_intervals(
    count: int, lost: float, won: float, alike: float
) -> None:
    images = np.repeat(np.arange(count), QUESTIONS)
    held = plain = 0
    for change in changes(count, lost, won, alike):
        found = mean_change(change, images)
        held += found.low <= won - lost <= found.high
        before = paired_difference(change, np.zeros_like(change), images)
        plain += before.low <= won - lost <= before.high
    assert held / TIMES >= 0.92  # of luck that is very skewed, not all 95 % with so few images
    assert held >= plain
    if lost <= 0.05:
        assert held / TIMES >= 0.95 - ERROR
    if lost == 0.02:
        assert plain / TIMES < 0.9


@pytest.mark.parametrize("count", [13, 40])
def test_no_difference_is_rarely_called_one(count: int) -> None:
    """Won and lost alike: p is below 0.05 in no more than 5 % of cases."""
    images = np.repeat(np.arange(count), QUESTIONS)
    rng = np.random.default_rng(count)
    sign = rng.choice([-1.0, 1.0], (TIMES, count))
    drawn = np.abs(changes(count, 0.2, 0.0, 0.3)) * np.repeat(sign, QUESTIONS, axis=1)
    called = sum(p_value(one, images) < 0.05 for one in drawn)
    assert called / TIMES <= 0.05 + ERROR


@pytest.mark.parametrize(("count", "mean"), [(13, 0.7), (20, 0.9), (40, 0.7), (40, 0.9)])
@pytest.mark.parametrize("alike", [0.0, 0.3])
def test_accuracies_lie_in_their_intervals(count: int, mean: float, alike: float) -> None:
    rng = np.random.default_rng(count)
    odds = np.repeat(lucks(rng, count, mean, alike), QUESTIONS, axis=1)
    images = np.repeat(np.arange(count), QUESTIONS)
    held = plain = 0
    for right in (rng.uniform(size=odds.shape) < odds).astype(np.float64):
        found = share(right, images)
        held += found.low <= mean <= found.high
        before = wilson(float(right.sum()), len(right))
        plain += before.low <= mean <= before.high
        assert found.low <= before.low and before.high <= found.high
    assert held / TIMES >= 0.93
    if alike:
        assert plain / TIMES < 0.9  # Wilson's, as if questions were independent
