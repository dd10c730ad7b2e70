"""What so many questions can say: literal readings of the bounds, and how often they hold."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from prunus.compare.student import Z, two_sided
from prunus.tune.bounds import (
    Loss,
    least_questions,
    least_upper,
    loss_of,
    median_interval,
)
from prunus.tune.goal import Costs, Goal
from prunus.tune.halving import Standing, too_lossy

Numbers = NDArray[np.float64]


def literal_loss(change: list[int], images: list[int]) -> tuple[float, float, float]:
    """Value, centre and standard error: a lost and a won question are added, each about an image
    of its own; the variance is that between images."""
    rows = [(-one, image) for one, image in zip(change, images, strict=True)]
    rows += [(1, -1), (-1, -2)]
    center = sum(lost for lost, _ in rows) / len(rows)
    squares = 0.0
    names = sorted({image for _, image in rows})
    for name in names:
        squares += sum(lost - center for lost, image in rows if image == name) ** 2
    variance = squares / len(rows) ** 2 * len(names) / (len(names) - 1)
    return -sum(change) / len(change), center, math.sqrt(variance)


def test_a_loss_is_its_literal_reading() -> None:
    rng = np.random.default_rng(1)
    change = rng.choice([-1, 0, 0, 0, 1], 40)
    images = rng.integers(0, 12, 40)
    found = loss_of(change.astype(float), images)
    value, center, error = literal_loss(change.tolist(), images.tolist())
    assert found.value == pytest.approx(value) and found.center == pytest.approx(center)
    assert found.error == pytest.approx(error)
    assert found.freedom == len(set(images.tolist())) - 1 and found.questions == 40


def test_what_is_lost_is_positive() -> None:
    lost = loss_of(np.array([-1.0, -1.0, 0.0, 0.0]), np.arange(4))
    assert lost.value == 0.5 and lost.interval()[1] > 0.5


@pytest.mark.parametrize(
    ("freedom", "level", "quantile"),
    [(24, 0.95, 2.0639), (24, 0.995, 3.0905), (10, 0.999, 4.5869), (2000, 0.99, 2.5783)],
)
def test_quantiles_of_other_levels_are_those_of_the_tables(
    freedom: int, level: float, quantile: float
) -> None:
    assert two_sided(freedom, level) == pytest.approx(quantile, abs=6e-5)


def test_bounds_of_many_at_once_are_bonferronis() -> None:
    loss = Loss(0.02, 0.02, 0.01, 24, 100)
    low, high = loss.interval()
    assert (high - low) / 2 == pytest.approx(2.0639 * 0.01, abs=1e-6)
    low, high = loss.interval(tests=10)
    assert (high - low) / 2 == pytest.approx(3.0905 * 0.01, abs=1e-6)
    assert loss.interval(level=0.995) == pytest.approx((low, high))
    assert Loss(0.0, 0.0, 0.1, 0, 5).interval() == (-1.0, 1.0)  # one image says nothing


@pytest.mark.parametrize("bound", [0.1, 0.03, 0.01])
def test_the_least_number_of_questions_is_counted(bound: float) -> None:
    """By asking more and more questions of which none changes."""
    count = 2
    while loss_of(np.zeros(count), np.arange(count)).interval()[1] > bound:
        count += 1
    assert least_questions(bound) == count
    assert least_upper(count) <= bound < least_upper(count - 1)
    assert least_upper(50, 1) == 1.0
    assert least_upper(50, 10) == pytest.approx(
        loss_of(np.zeros(50), np.repeat(np.arange(10), 5)).interval()[1]
    )


def test_questions_that_are_needed_show_it() -> None:
    """Four times as many as are needed for twice the distance, and the bound is then met."""
    loss = Loss(0.01, 0.01, 0.02, 99, 100)
    count = loss.needed(0.03)
    assert count is not None
    assert 0.01 + Z * math.sqrt(loss.variance / count) <= 0.03
    assert 0.01 + Z * math.sqrt(loss.variance / (count - 1)) > 0.03
    assert loss.needed(0.05) == pytest.approx(count / 4, abs=1)
    assert loss.needed(0.01) is None and loss.needed(0.005) is None
    nothing = Loss(0.0, 0.0, 1e-6, 99, 100)
    assert nothing.needed(0.01) == least_questions(0.01)


def test_the_chance_is_how_often_more_questions_show_it() -> None:
    rng = np.random.default_rng(3)
    loss, questions, bound = Loss(0.01, 0.012, 0.01, 199, 200), 400, 0.05
    true = rng.normal(0.012, 0.01, 200_000)
    error = 0.01 * math.sqrt(200 / questions)
    seen = rng.normal(true, error)
    often = float((seen + Z * error <= bound).mean())
    assert loss.chance(bound, questions) == pytest.approx(often, abs=0.004)
    # where no outcome of so few shows it, the chance is that it is so
    assert least_upper(20) > bound
    so = NormalDist(0.012, 0.01).cdf(bound)
    assert loss.chance(bound, 20) == pytest.approx(so)


def test_a_median_lies_in_its_interval() -> None:
    values = [float(one) for one in range(15)]
    assert median_interval(values) == (7.0, 3.0, 11.0)
    for count, aside in ((6, 0), (9, 1), (15, 3)):  # binomial tails, summed up
        tail = sum(math.comb(count, k) for k in range(aside + 1)) / 2**count
        assert 2 * tail <= 0.05
        more = sum(math.comb(count, k) for k in range(aside + 2)) / 2**count
        assert 2 * more > 0.05
        found = median_interval([float(one) for one in range(count)])
        assert found[1:] == (aside, count - 1 - aside)
    rng = np.random.default_rng(5)
    held = sum(low <= 1 <= high for _, low, high in map(median_interval, _skewed(rng, 2000)))
    assert held / 2000 >= 0.95
    assert median_interval([2.0]) == (2.0, 2.0, 2.0)


def _skewed(rng: np.random.Generator, times: int) -> list[list[float]]:
    return np.exp(rng.normal(size=(times, 15))).tolist()  # type: ignore[no-any-return]


def drawn(
    rng: np.random.Generator, times: int, candidates: int, questions: int, lost: float, won: float
) -> Numbers:
    """``[times, candidates, questions]``: candidates that are alike lose the same answers."""
    easy = rng.uniform(size=(times, 1, questions)) < 0.5
    own = rng.uniform(size=(times, candidates, questions))
    same = rng.uniform(size=(times, 1, questions))
    luck = np.where(easy, same, own)
    return np.where(luck < lost, -1.0, np.where(luck > 1 - won, 1.0, 0.0))


def test_who_is_within_the_bound_is_rarely_out() -> None:
    """In 5 % of searches at most, all candidates and rounds together, though each is just at it."""
    times, candidates, rounds = 250, 12, (24, 48, 96)
    rng = np.random.default_rng(7)
    goal, tests = Goal(max_loss=0.05), candidates * len(rounds)
    gone = single = 0
    for search in drawn(rng, times, candidates, rounds[-1], 0.09, 0.04):
        out = alone = False
        for count in rounds:
            standings = [
                Standing(str(n), loss_of(one[:count], np.arange(count)), Costs(flops=0.5))
                for n, one in enumerate(search)
            ]
            out |= bool(too_lossy(standings, goal, tests))
            alone |= bool(too_lossy(standings, goal, 1))
        gone += out
        single += alone
    assert gone / times <= 0.05
    assert single / times > 0.05  # without the correction


def test_what_is_chosen_of_many_is_rarely_shown_if_it_is_not_so() -> None:
    """The best of many on the tuning questions, judged on held-out ones, errs as one does: in 2.5 %
    at most. Judged by the very questions that it was chosen by, it would err far more often."""
    times, candidates, count = 400, 20, 200
    rng = np.random.default_rng(11)
    tuning = drawn(rng, times, candidates, count, 0.09, 0.03)
    held_out = drawn(rng, times, candidates, count, 0.09, 0.03)
    bound, wrong, naive = 0.06, 0, 0
    for first, second in zip(tuning, held_out, strict=True):
        losses = [loss_of(one, np.arange(count)) for one in first]
        best = min(range(candidates), key=lambda n: losses[n].value)
        naive += losses[best].interval()[1] <= bound
        wrong += loss_of(second[best], np.arange(count)).interval()[1] <= bound
    error = 2.5 * math.sqrt(0.025 * 0.975 / times)
    assert wrong / times <= 0.025 + error
    assert naive / times > 0.1
