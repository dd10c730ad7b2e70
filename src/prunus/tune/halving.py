"""Successive halving: many candidates are asked few questions, the more promising ones more.

Nothing here asks anything: from what was answered so far follows who goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.tune.bounds import Loss
from prunus.tune.goal import Costs, Goal

#: Questions of the first round, and by how much each further one has more.
FIRST, MORE = 24, 2
#: One of so many goes on; of the last ones, which are asked all questions, so many.
ONE_OF, LAST = 3, 3


@dataclass(frozen=True)
class Standing:
    """A candidate with what is known of it."""

    name: str
    loss: Loss
    costs: Costs


@dataclass(frozen=True)
class Round:
    """So many ``questions`` (all rounds together) for at most so many ``candidates``."""

    questions: int
    candidates: int


def plan(candidates: int, questions: int) -> list[Round]:
    """The rounds for so many ``candidates`` and tuning ``questions``; all are asked in the last
    one."""
    found, asked = [], min(FIRST, questions)
    while True:
        found.append(Round(asked, candidates))
        if asked == questions:
            return found
        candidates = max(min(LAST, candidates), -(-candidates // ONE_OF))
        asked = min(questions, asked * MORE)
        if candidates <= LAST:  # nobody else is left out, so nothing is gained by stopping
            asked = questions


def surely_out(standings: Sequence[Standing], goal: Goal, tests: int) -> dict[str, str]:
    """Those that cannot be what is wanted, by name, with the reason: they cost too much, or lose
    too much, or (without a largest loss) more than another: surely so, with bounds that hold for
    all ``tests`` (candidates times rounds) at once."""
    found = too_lossy(standings, goal, tests)
    for one in standings:
        if (why := goal.why_not(one.costs)) is not None:
            found[one.name] = why
    there = [one for one in standings if one.name not in found]
    if goal.max_loss is None and there:
        bounds = {one.name: one.loss.interval(tests) for one in there}
        least = min(high for _, high in bounds.values())
        for one in there:
            if bounds[one.name][0] > least:
                found[one.name] = "loses more than another"
    return found


def too_lossy(standings: Sequence[Standing], goal: Goal, tests: int) -> dict[str, str]:
    """Those that surely lose more than the largest loss, if there is one, as of
    :func:`surely_out`."""
    found: dict[str, str] = {}
    for one in standings if goal.max_loss is not None else ():
        low = one.loss.interval(tests)[0]
        if goal.max_loss is not None and low > goal.max_loss:
            found[one.name] = f"loses {100 * low:.1f} points or more"
    return found


def ranked(standings: Sequence[Standing], goal: Goal, held_out: int) -> list[Standing]:
    """The most promising first. Within a largest loss: what is saved, times the chance that
    ``held_out`` questions will show that no more is lost. Without one: the least loss, and of equal
    ones the cheapest. Then the order in which they are given."""

    def worth(one: Standing) -> tuple[float, float]:
        share = one.costs.share
        saved = 0.0 if share is None else 1 - share
        if goal.max_loss is None:
            return -one.loss.center, saved
        return saved * one.loss.chance(goal.max_loss, held_out), saved

    return sorted(standings, key=worth, reverse=True)
