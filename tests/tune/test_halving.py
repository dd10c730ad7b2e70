"""Who goes on: the rounds, who is surely out, and who promises most, as they are written down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pytest

from prunus.compare.student import Z, two_sided
from prunus.errors import PrunusError
from prunus.tune.bounds import Loss, least_upper, loss_of
from prunus.tune.goal import Costs, Goal, parse_kv
from prunus.tune.halving import Standing, plan, ranked, surely_out


def literal_plan(candidates: int, questions: int) -> list[tuple[int, int]]:
    """(questions, candidates): 24 questions, then twice as many for a third, rounded up; once there
    are three or fewer, all questions."""
    found = [(min(24, questions), candidates)]
    while found[-1][0] < questions:
        asked, there = found[-1]
        third = there // 3 + (there % 3 > 0)
        if third < 3:
            third = 3 if there > 3 else there
        found.append((questions if third <= 3 else min(questions, 2 * asked), third))
    return found


@pytest.mark.parametrize("candidates", [1, 2, 3, 4, 10, 27, 160])
@pytest.mark.parametrize("questions", [1, 24, 25, 48, 100, 700])
def test_the_rounds(candidates: int, questions: int) -> None:
    found = plan(candidates, questions)
    assert [(one.questions, one.candidates) for one in found] == literal_plan(candidates, questions)
    assert found[-1].questions == questions


def test_rounds_of_a_large_search() -> None:
    found = [(one.questions, one.candidates) for one in plan(160, 700)]
    assert found == [(24, 160), (48, 54), (96, 18), (192, 6), (700, 3)]


def standing(name: str, lost: int, won: int, questions: int = 200, share: float = 0.5) -> Standing:
    change = np.zeros(questions)
    change[:lost], change[lost : lost + won] = -1, 1
    return Standing(name, loss_of(change, np.arange(questions)), Costs(flops=share, kv=share))


FEW = [
    standing("safe", 2, 2, share=0.9),
    standing("good", 4, 3, share=0.4),
    standing("cheap", 14, 4, share=0.2),
    standing("hopeless", 80, 2, share=0.1),
    standing("dear", 0, 0, share=1.2),
]


def literal_out(standings: Sequence[Standing], bound: float, tests: int) -> set[str]:
    out = set()
    for one in standings:
        quantile = two_sided(one.loss.freedom, 1 - 0.05 / tests)
        if one.loss.center - quantile * one.loss.error > bound or (one.costs.flops or 0) >= 1:
            out.add(one.name)
    return out


def literal_order(standings: Sequence[Standing], bound: float, held_out: int) -> list[str]:
    """By what is saved, times the chance that the held-out questions show it."""
    worth = {}
    for one in standings:
        ahead = one.loss.error * math.sqrt(one.loss.questions / held_out)
        chance = NormalDist().cdf(
            (bound - one.loss.center - Z * ahead) / math.sqrt(one.loss.error**2 + ahead**2)
        )
        worth[one.name] = (1 - (one.costs.flops or 0)) * chance
    return sorted(worth, key=lambda name: -worth[name])


@pytest.mark.parametrize("bound", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("tests", [1, 15, 400])
def test_who_is_out_and_who_promises_most(bound: float, tests: int) -> None:
    goal = Goal(max_loss=bound)
    out = surely_out(FEW, goal, tests)
    assert set(out) == literal_out(FEW, bound, tests) >= {"dear"}
    left = [one for one in FEW if one.name not in out]
    held_out = 2000
    assert least_upper(held_out) <= bound
    assert [one.name for one in ranked(left, goal, held_out)] == literal_order(
        left, bound, held_out
    )


def test_the_order_changes_with_the_bound() -> None:
    """With much to lose the cheap one, with little the one of which it can be shown."""
    some = [standing("safe", 0, 0, share=0.9), standing("cheap", 14, 4, share=0.2)]
    names = {bound: ranked(some, Goal(max_loss=bound), 2000)[0].name for bound in (0.03, 0.3)}
    assert names == {0.03: "safe", 0.3: "cheap"}


def test_the_correction_spares_those_that_may_be_within_the_bound() -> None:
    one = standing("maybe", 26, 4)
    goal = Goal(max_loss=0.05)
    assert set(surely_out([one], goal, 1)) == {"maybe"}
    assert surely_out([one], goal, 100) == {}


def test_without_a_largest_loss_the_least_is_wanted() -> None:
    goal = Goal(min_speed_up=2.0)
    out = surely_out(FEW, goal, 10)
    assert set(out) == {"safe", "dear", "hopeless"}
    assert out["safe"] == "is 1.11 times as fast" and "more than another" in out["hopeless"]
    left = [FEW[2], FEW[1]]
    assert [one.name for one in ranked(left, goal, 10)] == ["good", "cheap"]
    twins = [standing("dearer", 4, 3, share=0.5), FEW[1], standing("as good", 4, 3, share=0.4)]
    assert [one.name for one in ranked(twins, goal, 10)] == ["good", "as good", "dearer"]


def test_memory_is_a_bound_too() -> None:
    costs = Costs(flops=0.5, kv=0.3, most_kv=40e6, time=0.8)
    assert Goal(max_kv=40e6).why_not(costs) is None
    assert Goal(max_kv=39e6).why_not(costs) == "needs 40,000,000 bytes of KV cache"
    assert Goal(max_kv_share=0.3).why_not(costs) is None
    assert Goal(max_kv_share=0.25).why_not(costs) == "needs 30.0% of the KV bytes"
    assert Goal(min_speed_up=1.25).why_not(costs) is None  # of the time, where it was taken
    assert Goal(min_speed_up=1.3).why_not(costs) == "is 1.25 times as fast"
    nothing = Costs()
    assert "not counted" in str(Goal(max_kv_share=0.3).why_not(nothing))
    assert "not counted" in str(Goal(max_loss=0.3).why_not(nothing))
    assert (
        Goal(max_loss=0.3, max_kv=39e6).words
        == "at most 30 points lost, at most 39 MB of KV cache for a prompt"
    )


def test_what_is_no_goal_is_refused() -> None:
    with pytest.raises(PrunusError, match="--max-loss.*--min-speed-up.*--max-kv"):
        Goal()
    for wrong in ({"max_loss": 0.0}, {"max_loss": 1.0}, {"max_loss": math.nan},
                  {"min_speed_up": 1.0}, {"min_speed_up": math.inf}, {"max_kv": 0.0},
                  {"max_kv_share": 1.0}):  # fmt: skip
        with pytest.raises(PrunusError, match="give more than"):
            Goal(**wrong)
    assert parse_kv("40MB") == {"max_kv": 40e6} and parse_kv("64 MiB") == {"max_kv": 64 * 2.0**20}
    assert parse_kv("25%") == {"max_kv_share": 0.25} and parse_kv("1e3"[:1]) == {"max_kv": 1.0}
    for text in ("", "much", "-3MB", "40TB", "40MB!", "%"):
        with pytest.raises(PrunusError, match="40MB"):
            parse_kv(text)


def test_one_image_says_nothing() -> None:
    lonely = Standing("lonely", Loss(0.9, 0.8, 0.1, 0, 10), Costs(flops=0.5))
    assert surely_out([lonely], Goal(max_loss=0.01), 1) == {}
    assert lonely.loss.chance(0.01, 10) == 0.5
