"""Intervals, p values and corrections against slow readings of their definitions."""

import itertools
import math

import numpy as np
import pytest

from prunus.compare.contract import Against, Row
from prunus.compare.statistics import difference, holm, mean_change, p_value, share
from prunus.compare.student import two_sided
from prunus.compare.verdicts import correct
from prunus.results.stats import wilson

#: Two-sided 95 % quantiles by degrees of freedom, as they are printed in tables.
STUDENT = {
    1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445, 5: 2.570582, 12: 2.178813, 16: 2.119905,
    40: 2.021075, 139: 1.977178, 999: 1.962341, 1000: 1.962339, 5000: 1.960439,
}  # fmt: skip


def literal_sign_flips(sums: list[float]) -> float:
    """Of all 2^n ways to give the sums of images a sign, the share that is as far from 0."""
    reached = sum(
        abs(sum(sign * one for sign, one in zip(signs, sums, strict=True))) >= abs(sum(sums)) - 1e-9
        for signs in itertools.product((-1, 1), repeat=len(sums))
    )
    return reached / 2 ** len(sums)


def literal_share(right: list[float], images: list[int]) -> tuple[float, float]:
    """Ends of the interval: Wilson's of n / (design effect * (t / z) ** 2) questions."""
    total, p = len(right), sum(right) / len(right)
    names = sorted(set(images))
    squares = 0.0
    for name in names:
        residual = sum(one - p for one, image in zip(right, images, strict=True) if image == name)
        squares += residual**2
    between = squares / total**2 * len(names) / (len(names) - 1)
    effect = max(1.0, between / (p * (1 - p) / total))
    n = total / (effect * (STUDENT[len(names) - 1] / 1.959963984540054) ** 2)
    z = 1.959963984540054
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


def literal_mean(change: list[float], images: list[int]) -> tuple[float, float]:
    """Ends of the interval: two questions more, lost and won, each about an image of its own."""
    change, images = [*change, -1.0, 1.0], [*images, -1, -2]
    mean = sum(change) / len(change)
    by_image: dict[int, float] = {}
    for one, image in zip(change, images, strict=True):
        by_image[image] = by_image.get(image, 0.0) + one - mean
    count = len(by_image)
    variance = sum(one**2 for one in by_image.values()) / len(change) ** 2 * count / (count - 1)
    half = STUDENT[count - 3] * math.sqrt(variance)
    return mean - half, mean + half


def literal_holm(values: dict[str, float]) -> dict[str, float]:
    """Step down: the smallest p times the number of tests, the next times one less, never less
    than the one before."""
    left, found, last = dict(values), {}, 0.0
    while left:
        least = min(left.values())
        name = min(name for name, p in left.items() if p == least)
        last = max(last, min(1.0, least * len(left)))
        found[name] = last
        del left[name]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_p_of_few_images_tries_all_signs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = np.sort(rng.integers(0, 8, 30))
    change = rng.integers(-1, 2, 30).astype(np.float64)
    sums = [float(change[images == one].sum()) for one in range(8)]
    assert p_value(change, images) == pytest.approx(literal_sign_flips(sums))


@pytest.mark.parametrize("seed", range(4))
def test_p_of_several_seeds_tries_all_signs(seed: int) -> None:
    """Thirds lie on a grid; what lies on none is rounded, and never surer for it."""
    rng = np.random.default_rng(seed)
    images = np.sort(rng.integers(0, 9, 40))
    change = rng.integers(-3, 4, 40) / 3
    sums = [float(change[images == one].sum()) for one in range(9)]
    assert p_value(change, images, 3) == pytest.approx(literal_sign_flips(sums))
    odd = rng.uniform(-1, 1, 40)
    exact = literal_sign_flips([float(odd[images == one].sum()) for one in range(9)])
    assert exact <= p_value(odd, images) <= exact + 0.01


def test_p_of_many_images_is_near_the_normal_one() -> None:
    rng = np.random.default_rng(1)
    images = np.repeat(np.arange(400), 4)
    change = rng.choice([-1.0, 0.0, 0.0, 1.0, 1.0], len(images)) - rng.choice([0.0, 0.3], 1600)
    sums = np.bincount(images, weights=change)
    z = abs(sums.sum()) / math.sqrt(float((sums**2).sum()))
    assert 0.001 < math.erfc(z / math.sqrt(2)) < 0.9
    assert p_value(change, images, 10) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.1)


def test_p_of_the_sign_test() -> None:
    sums = np.array([1.0] * 9 + [-1.0] * 3)
    assert p_value(sums, np.arange(12)) == pytest.approx(2 * (1 + 12 + 66 + 220) / 4096)


@pytest.mark.parametrize(("freedom", "quantile"), STUDENT.items())
def test_student_against_printed_tables(freedom: int, quantile: float) -> None:
    assert two_sided(freedom) == pytest.approx(quantile, rel=2e-6)


@pytest.mark.parametrize("seed", range(4))
def test_intervals_are_those_of_their_equations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = np.sort(np.r_[np.arange(17), rng.integers(0, 17, 73)])
    luck = rng.uniform(0.2, 1.0, 17)[images]
    right = (rng.uniform(size=90) < luck).astype(np.float64)
    found = share(right, images)
    assert (found.low, found.high) == pytest.approx(
        literal_share(right.tolist(), images.tolist()), rel=1e-5
    )
    plain = wilson(float(right.sum()), 90)
    assert found.low < plain.low and plain.high < found.high
    change = right - (rng.uniform(size=90) < luck)
    mean = mean_change(change, images)
    assert mean.value == pytest.approx(change.mean())
    assert (mean.low, mean.high) == pytest.approx(
        literal_mean(change.tolist(), images.tolist()), rel=1e-5
    )


def test_intervals_at_their_ends() -> None:
    """All right, no change, one image, an image for each question, all changed."""
    images = np.repeat(np.arange(20), 5)
    sure = share(np.ones(100), images)
    assert sure.high == 1.0 and wilson(100, 100).low > sure.low > 0.94
    apart = share(np.r_[np.ones(70), np.zeros(30)], np.arange(100))
    assert apart == wilson(70, 100)
    assert share(np.array([1.0, 0.0]), np.zeros(2, dtype=np.int64)) == (0.5, 0.0, 1.0)
    none = mean_change(np.zeros(100), images)
    assert none.value == 0 and none.low == pytest.approx(-none.high) and none.high > 0.02
    assert mean_change(np.zeros(5), np.zeros(5, dtype=np.int64)) == (0.0, -1.0, 1.0)
    every = mean_change(-np.ones(4), np.arange(4))
    assert every.low == every.value == -1.0 < every.high


def test_p_where_nothing_or_everything_changes() -> None:
    assert p_value(np.zeros(9), np.arange(9)) == 1.0
    assert p_value(np.ones(1), np.zeros(1, dtype=np.int64)) == 1.0  # one image says nothing
    assert p_value(np.ones(4), np.arange(4)) == pytest.approx(2 / 2**4)
    assert p_value(np.ones(100), np.arange(100)) == 2.0**-99  # no division by a variance of 0


@pytest.mark.parametrize("step", [1 / 3, 0.1, 0.7, 1.0])
def test_p_is_never_less_than_all_signs_allow(step: float) -> None:
    """Thirds are not exact: what rounding leaves of a variance of 0 is no certainty."""
    for count in (13, 20, 49):
        parts = 30
        assert p_value(np.full(count, step), np.arange(count), parts) == 2.0 ** (1 - count)
        nearly = np.full(count, step)
        nearly[0] = step / 2
        assert p_value(nearly, np.arange(count), parts) >= 2.0 ** (1 - count)


def test_questions_about_one_image_are_no_independent_ones() -> None:
    """The same changes are surer where each is about another image."""
    rng = np.random.default_rng(3)
    change = np.repeat(rng.choice([-1.0, 0.0, 1.0, 1.0], 40), 5)
    together, apart = np.repeat(np.arange(40), 5), np.arange(200)
    assert p_value(change, together) > 3 * p_value(change, apart)
    ours, theirs = (change > 0)[None].astype(float), (change < 0)[None].astype(float)
    wide = difference(ours, theirs, together).estimate
    narrow = difference(ours, theirs, apart).estimate
    assert wide.value == narrow.value == pytest.approx(change.mean())
    assert (wide.high - wide.low) > 2 * (narrow.high - narrow.low)


def test_seeds_are_averaged_and_flips_are_those_of_pairs() -> None:
    ours = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=np.float64)
    theirs = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0]], dtype=np.float64)
    found = difference(ours, theirs, np.arange(4))
    assert found.estimate.value == pytest.approx((3 / 2 - 5 / 3) / 4)
    lost = won = 0
    for one in ours:
        for other in theirs:
            lost += int(((one == 0) & (other == 1)).sum())
            won += int(((one == 1) & (other == 0)).sum())
    assert found.flips == (pytest.approx(lost / 6), pytest.approx(won / 6))
    # averaged before they are compared: opposite luck of seeds is no difference
    changes = ours.mean(axis=0) - theirs.mean(axis=0)
    assert found.p == pytest.approx(literal_sign_flips(changes.tolist()))


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_step_down_procedure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {f"m{n}": float(round(rng.uniform() ** 3, 2)) for n in range(9)}
    assert holm(values) == pytest.approx(literal_holm(values))


def test_holm_of_the_textbook() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({}) == {} and holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    with pytest.raises(ValueError, match=r"0\.\.1"):
        holm({"a": 1.2})


def against(p: float) -> Against:
    return Against(value=0.0, low=0.0, high=0.0, p=p, p_corrected=None, lost=0.0, won=0.0)


def row(method: str, meaning: str, p: float, **others: float) -> Row:
    return Row(
        key=f"{method}|{meaning}|0.1", method=method, meaning=meaning, asked=0.1, nominal=64,
        refused=None, against={"dense": against(p), **{k: against(v) for k, v in others.items()}},
    )  # fmt: skip


def test_families_are_budgets_and_comparisons_without_controls() -> None:
    refused = row("d", "true", 0.0)
    refused["refused"] = "no"
    rows = [
        row("a", "true", 0.01, random=0.02), row("b", "true", 0.04), row("ground-truth", "true", 0),
        row("a", "nominal", 0.01), refused,
    ]  # fmt: skip
    correct(rows)
    corrected = [one["against"]["dense"]["p_corrected"] for one in rows]
    assert corrected == [0.02, 0.04, None, 0.01, None]
    assert rows[0]["against"]["random"]["p_corrected"] == 0.02  # alone in its family


def test_wilson_against_its_equation() -> None:
    """The ends of the interval are the shares from which what was seen is 1.96 deviations away."""
    found = wilson(17, 40)
    for end in (found.low, found.high):
        assert abs(17 / 40 - end) / math.sqrt(end * (1 - end) / 40) == pytest.approx(1.959964)
