"""Exactly the budget is left, whatever the schedule, for every budget that can be reached."""

from __future__ import annotations

import pytest

from prunus.method.removals import SCHEDULES, least, removals, shares


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("blocks", "start"), [(23, 0), (23, 1), (26, 1), (8, 1), (3, 2)])
@pytest.mark.parametrize("original", [576, 729, 17, 1])
@pytest.mark.parametrize("larger", [True, False])
def test_every_reachable_budget_is_exact(
    schedule: str, blocks: int, start: int, original: int, larger: bool
) -> None:
    weights = shares(schedule, blocks, start, None, 1.0)  # type: ignore[arg-type]
    merging = sum(weight > 0 for weight in weights)
    lowest = original
    for _ in range(merging):  # a single token is left alone
        lowest = max(1, lowest // 2 if larger else (lowest + 1) // 2)
    assert least(original, merging, larger) == lowest
    for budget in range(lowest, original + 1):
        counts = removals(original, budget, weights, larger)
        assert len(counts) == blocks and sum(counts) == original - budget
        left = original
        for count, weight in zip(counts, weights, strict=True):
            # A bipartite merge removes at most one half, and only where it may.
            assert 0 <= count <= (left + larger) // 2 and (weight > 0 or count == 0)
            left -= count
            assert left >= 1
    for budget in range(1, lowest):
        with pytest.raises(ValueError, match=f"the least is {lowest} "):
            removals(original, budget, weights, larger)


def at(original: int, budget: int, blocks: int, start: int) -> list[int]:
    counts = removals(original, budget, shares("skip", blocks, start, None, 1.0))
    assert not any(counts[1 - start :: 2])
    return counts[start::2]


def test_feasible_budgets_have_equal_steps_the_larger_ones_first() -> None:
    assert at(576, 128, 23, 0) == [38] * 4 + [37] * 8
    assert at(576, 64, 23, 1) == [47] * 6 + [46] * 5
    assert at(729, 64, 26, 1) == [52] * 2 + [51] * 11


def test_infeasible_equal_steps_are_solved_backwards() -> None:
    assert at(576, 32, 23, 0) == [47] * 6 + [46] * 5 + [32]
    assert at(729, 16, 26, 1) == [61] * 5 + [60] * 6 + [32, 16]
    assert at(729, 32, 26, 1) == [56] * 5 + [55] * 7 + [32]


def test_shapes_of_the_schedules() -> None:
    assert shares("skip", 6, 1, None, 1.0) == [0, 1, 0, 1, 0, 1]
    assert shares("mean", 4, 1, None, 1.0) == [0, 1, 1, 1]
    assert shares("first", 6, 1, 2, 1.0) == [0, 1, 1, 0, 0, 0]
    assert shares("last", 6, 0, None, 1.0) == [0, 0, 0, 1, 1, 1]
    assert shares("increasing", 4, 1, None, 2.0) == [0, 1, 4, 9]
    assert shares("decreasing", 3, 0, None, 1.0) == [3, 2, 1]
    weights = shares("decreasing", 26, 0, None, 1.0)
    counts = removals(729, 200, weights)
    assert counts == sorted(counts, reverse=True) and counts[0] > 8 * counts[-1] > 0
