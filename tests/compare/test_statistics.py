"""Intervals, p values and corrections against slow readings of their definitions."""

import itertools
import math

import numpy as np
import pytest

from prunus.compare.contract import Against, Row
from prunus.compare.statistics import EXACT, difference, holm, p_value
from prunus.compare.verdicts import correct
from prunus.results.stats import wilson


def literal_sign_flips(sums: list[float]) -> float:
    """Of all 2^n ways to give the sums of images a sign, the share that is as far from 0."""
    reached = sum(
        abs(sum(sign * one for sign, one in zip(signs, sums, strict=True))) >= abs(sum(sums)) - 1e-9
        for signs in itertools.product((-1, 1), repeat=len(sums))
    )
    return reached / 2 ** len(sums)


def literal_normal(change: list[float], images: list[int]) -> float:
    mean = sum(change) / len(change)
    by_image: dict[int, float] = {}
    for one, image in zip(change, images, strict=True):
        by_image[image] = by_image.get(image, 0.0) + one - mean
    count = len(by_image)
    variance = sum(one**2 for one in by_image.values()) / len(change) ** 2 * count / (count - 1)
    z = abs(mean) / math.sqrt(variance)
    return 2 * (1 - 0.5 * (1 + math.erf(z / math.sqrt(2))))


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


@pytest.mark.parametrize("seed", range(6))
def test_p_of_many_images_is_the_normal_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = np.repeat(np.arange(60), 4)
    change = rng.choice([-1.0, 0.0, 0.0, 1.0, 1.0], len(images))
    expected = literal_normal(change.tolist(), images.tolist())
    assert p_value(change, images) == pytest.approx(expected, rel=1e-6)


def test_two_ways_to_p_meet() -> None:
    """At the border the normal approximation is near what all signs give."""
    sums = [1.0] * 9 + [-1.0] * 3
    images = np.arange(EXACT)
    exact = p_value(np.array(sums), images)
    normal = literal_normal(sums, images.tolist())
    assert exact == pytest.approx(0.146, abs=1e-3)  # 2 * (1 + 12 + 66 + 220) / 4096
    assert normal < exact < 4 * normal  # the exact one is the careful one


def test_p_where_nothing_or_everything_changes() -> None:
    assert p_value(np.zeros(9), np.arange(9)) == 1.0
    assert p_value(np.ones(1), np.zeros(1, dtype=np.int64)) == 1.0  # one image says nothing
    assert p_value(np.ones(4), np.arange(4)) == pytest.approx(2 / 2**4)
    assert p_value(np.ones(100), np.arange(100)) == 2.0**-99  # no division by a variance of 0


@pytest.mark.parametrize("step", [1 / 3, 0.1, 0.7, 1.0])
def test_p_is_never_less_than_all_signs_allow(step: float) -> None:
    """Thirds are not exact: what rounding leaves of a variance of 0 is no certainty."""
    for count in (13, 20, 49):
        assert p_value(np.full(count, step), np.arange(count)) == 2.0 ** (1 - count)
        nearly = np.full(count, step)
        nearly[0] = step / 2
        assert p_value(nearly, np.arange(count)) >= 2.0 ** (1 - count)


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
