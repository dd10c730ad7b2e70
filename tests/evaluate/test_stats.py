"""Intervals against published values and slow references."""

import math

import numpy as np
import pytest

from prunus.results.stats import auroc, flips, paired_difference, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_against_published_values(right: int, total: int, low: float, high: float) -> None:
    found = wilson(right, total)
    assert found.value == right / total
    assert found.low == pytest.approx(low, abs=5e-5) and found.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize(("right", "total"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_what_is_no_share(right: int, total: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson(right, total)


def answers(seed: int, images: int, per: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right answers of two methods; those about one image go together."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(images), per)
    luck = rng.random(images)[groups]
    base = (rng.random(groups.size) < luck).astype(np.float64)
    right = (rng.random(groups.size) < 0.8 * luck).astype(np.float64)
    return right, base, groups


def test_paired_interval_is_the_textbook_one_for_one_question_per_image() -> None:
    right, base, groups = answers(0, 400, 1)
    lost, won = flips(right, base)
    size = 400
    error = math.sqrt((lost + won - (won - lost) ** 2 / size) / (size * (size - 1)))
    found = paired_difference(right, base, groups)
    assert found.value == pytest.approx((won - lost) / size)
    assert found.high - found.value == pytest.approx(1.959964 * error, rel=1e-6)


def test_paired_interval_agrees_with_a_bootstrap_over_images() -> None:
    right, base, groups = answers(1, 120, 5)
    found = paired_difference(right, base, groups)
    rng = np.random.default_rng(2)
    change = (right - base).reshape(120, 5).sum(axis=1)
    means = [change[rng.integers(0, 120, 120)].sum() / 600 for _ in range(4000)]
    low, high = np.percentile(means, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.006) and found.high == pytest.approx(
        high, abs=0.006
    )


def test_paired_interval_does_not_depend_on_the_order() -> None:
    right, base, groups = answers(3, 30, 4)
    order = np.random.default_rng(4).permutation(120)
    shuffled = paired_difference(right[order], base[order], groups[order] + 17)
    assert shuffled == pytest.approx(paired_difference(right, base, groups))


def test_one_image_says_nothing_about_others() -> None:
    found = paired_difference(np.ones(3), np.zeros(3), np.zeros(3, dtype=np.int64))
    assert (found.value, found.low, found.high) == (1.0, -1.0, 1.0)


def test_pairing_needs_the_same_questions() -> None:
    with pytest.raises(ValueError, match="cannot pair"):
        paired_difference(np.ones(3), np.ones(2), np.zeros(3, dtype=np.int64))


def test_flips_count_both_directions() -> None:
    right, base = np.array([1.0, 0, 0, 1, 1]), np.array([1.0, 1, 1, 0, 1])
    assert flips(right, base) == (2.0, 1.0)


def test_auroc_against_all_pairs() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 6, 60).astype(np.float64)  # many ties
    positive = rng.random(60) < 0.3
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in scores[positive]
        for b in scores[~positive]
    ]
    assert auroc(scores, positive) == pytest.approx(np.mean(wins))
    holes = np.append(scores, [np.nan, np.nan])
    assert auroc(holes, np.append(positive, [True, False])) == pytest.approx(np.mean(wins))
    assert math.isnan(auroc(scores, np.zeros(60, dtype=np.bool_)))
