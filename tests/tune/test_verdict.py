"""What is shown, what is not, and what is missed; the answer in words."""

from __future__ import annotations

import pytest

from prunus.tune.contract import MISSED, NOT_SHOWN, SHOWN
from prunus.tune.goal import Costs, Goal
from prunus.tune.verdict import checks_of, overall, timed

ALL = Goal(max_loss=0.01, min_speed_up=1.5, max_kv=1000.0, max_kv_share=0.5)
FAST = timed({"dense": [3.0] * 15, "own": [1.5] * 15})


@pytest.mark.parametrize(
    ("loss", "verdict"),
    [
        ((0.0, -0.01, 0.01), SHOWN),
        ((0.01, 0.01, 0.01), SHOWN),
        ((0.0, -0.01, 0.0101), NOT_SHOWN),
        ((0.01, -0.01, 0.03), NOT_SHOWN),
        ((0.0101, 0.0, 0.03), MISSED),
        ((0.05, 0.02, 0.08), MISSED),
    ],
)
def test_a_loss_is_shown_by_its_upper_bound(loss: tuple[float, float, float], verdict: str) -> None:
    (check,) = checks_of(Goal(max_loss=0.01), loss, Costs(), None, [])
    assert (check["what"], check["verdict"], check["bound"]) == ("loss", verdict, 0.01)


def test_a_speed_up_is_shown_by_its_lower_bound() -> None:
    goal = Goal(min_speed_up=1.5)

    def verdict(own: list[float]) -> str:
        time = timed({"dense": [3.0] * len(own), "own": own})
        return checks_of(goal, (0, 0, 0), Costs(flops=0.9), time, [])[0]["verdict"]

    assert verdict([1.5] * 15) == SHOWN
    assert verdict([1.9] * 7 + [2.1] * 8) == MISSED
    assert verdict([1.9] * 9 + [2.1] * 6) == NOT_SHOWN
    assert verdict([1.9] * 12 + [2.1] * 3) == SHOWN
    # in FLOPs, where nothing was timed
    for flops, wanted in ((0.6, SHOWN), (0.7, MISSED)):
        (check,) = checks_of(goal, (0, 0, 0), Costs(flops=flops), None, [])
        assert check["verdict"] == wanted and check["value"] == pytest.approx(1 / flops)


def test_what_may_lose_something_is_to_be_faster() -> None:
    """Measured anew, it may turn out not to be."""
    for own, wanted in ((1.9, SHOWN), (2.1, MISSED)):
        time = timed({"dense": [2.0] * 15, "own": [own] * 15})
        loss, speed = checks_of(Goal(max_loss=0.01), (0, -0.1, 0), Costs(flops=0.5), time, [])
        assert (loss["what"], speed["what"], speed["bound"]) == ("loss", "speed-up", 1.0)
        assert speed["verdict"] == wanted and overall([loss, speed]) == wanted


def test_memory_is_that_of_the_largest_prompt() -> None:
    for most, wanted in ((1000.0, SHOWN), (1001.0, MISSED)):
        (check,) = checks_of(Goal(max_kv=1000.0), (0, 0, 0), Costs(), None, [10.0, most])
        assert (check["verdict"], check["value"], check["low"]) == (wanted, most, 10.0)
    (check,) = checks_of(Goal(max_kv_share=0.5), (0, 0, 0), Costs(kv=0.51), None, [])
    assert check["verdict"] == MISSED


def test_all_that_was_wanted_is_checked_and_the_worst_counts() -> None:
    checks = checks_of(ALL, (0.0, -0.01, 0.005), Costs(kv=0.4), FAST, [900.0])
    assert [one["what"] for one in checks] == ["loss", "speed-up", "kv", "kv share"]
    assert overall(checks) == SHOWN
    checks = checks_of(ALL, (0.0, -0.01, 0.02), Costs(kv=0.4), FAST, [900.0])
    assert overall(checks) == NOT_SHOWN
    checks = checks_of(ALL, (0.0, -0.01, 0.02), Costs(kv=0.6), FAST, [900.0])
    assert overall(checks) == MISSED
    assert FAST["speed_up"] == {"value": 2.0, "low": 2.0, "high": 2.0} and FAST["rounds"] == 15
