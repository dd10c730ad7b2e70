"""What the held-out questions say, once, of the one that was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from prunus.compare.contract import Interval
from prunus.compare.course import Course, Ledger
from prunus.compare.statistics import share
from prunus.results.stats import Estimate
from prunus.tune.bounds import Loss, median_interval
from prunus.tune.candidates import label
from prunus.tune.contract import MISSED, NOT_SHOWN, SHOWN, Check, Held, Timed
from prunus.tune.evidence import Evidence
from prunus.tune.goal import Costs, Goal
from prunus.tune.search import costing


def held(
    course: Course,
    ledger: Ledger,
    answered: bool,
    goal: Goal,
    seconds: Mapping[str, Sequence[float]] | None,
    level: float,
    share_held: float,
) -> Held:
    """Judge ``ledger``, which has an answer to every question of ``course``.

    Args:
        course, ledger: of the held-out side.
        answered: whether answers are given.
        goal: what is wanted.
        seconds: "dense" and "own", of rounds; None: not timed.
        level: of the loss's interval.
        share_held: what share of all questions is held out.
    """
    evidence, numbers = Evidence(course, answered), course.numbers
    images = evidence.images(numbers)
    change = evidence.change(ledger, numbers)
    loss = evidence.loss(ledger, numbers)
    low, high = loss.interval(level=level)
    time = None if seconds is None else timed(seconds)
    median = None if time is None else time["pruned"] / time["dense"]
    costs = evidence.costs(ledger, numbers, median)
    kv = evidence.figures(ledger, numbers, "kv")
    dense_kv = evidence.figures(ledger, numbers, "dense_kv")
    checks = checks_of(goal, (loss.value, low, high), costs, time, kv)
    return Held(
        label=label(ledger.column),
        questions=len(numbers),
        images=len(set(images.tolist())),
        level=level,
        dense=_plain(share(evidence.right(course.dense, numbers), images)),
        pruned=_plain(share(evidence.right(ledger, numbers), images)),
        loss=Interval(value=loss.value, low=low, high=high),
        lost=int((change < 0).sum()),
        won=int((change > 0).sum()),
        costs=costing(costs),
        time=time,
        kv=Interval(value=float(np.mean(kv)), low=min(kv), high=max(kv)) if kv else None,
        kv_dense=float(np.mean(dense_kv)) if dense_kv else None,
        tokens=float(np.mean(evidence.figures(ledger, numbers, "average"))),
        tokens_dense=float(np.mean(evidence.figures(course.dense, numbers, "average"))),
        checks=checks,
        needed=needed(loss, goal, share_held),
        earlier=[],
    )


def timed(seconds: Mapping[str, Sequence[float]]) -> Timed:
    """Medians of seconds, and how many times as fast it is."""
    ratios = [a / b for a, b in zip(seconds["dense"], seconds["own"], strict=True)]
    value, low, high = median_interval(ratios)
    return Timed(
        dense=float(np.median(seconds["dense"])),
        pruned=float(np.median(seconds["own"])),
        speed_up=Interval(value=value, low=low, high=high),
        rounds=len(ratios),
    )


def checks_of(
    goal: Goal,
    loss: tuple[float, float, float],
    costs: Costs,
    time: Timed | None,
    kv: Sequence[float],
) -> list[Check]:
    """Each thing that was wanted, and whether it is so. What may lose something is to be faster, if
    nobody says by how much."""
    found = []
    if goal.max_loss is not None:
        found.append(_check("loss", goal.max_loss, *loss))
    faster = goal.min_speed_up or (None if goal.max_loss is None else 1.0)
    if faster is not None and (time is not None or costs.flops is not None):
        if time is not None:
            speed = time["speed_up"]
            three = (speed["value"], speed["low"], speed["high"])
        else:
            three = (1 / costs.flops if costs.flops else math.nan,) * 3
        found.append(_check("speed-up", faster, *three, more=True))
    if goal.max_kv is not None and kv:
        found.append(_check("kv", goal.max_kv, max(kv), min(kv), max(kv)))
    if goal.max_kv_share is not None and costs.kv is not None:
        found.append(_check("kv share", goal.max_kv_share, *(costs.kv,) * 3))
    return found


def _check(
    what: str, bound: float, value: float, low: float, high: float, more: bool = False
) -> Check:
    """Wanted is at most ``bound``, or (``more``) at least so much: shown if the whole interval
    says so, missed if the value does not."""
    near, far = (value >= bound, low >= bound) if more else (value <= bound, high <= bound)
    verdict = SHOWN if near and far else NOT_SHOWN if near else MISSED
    return Check(what=what, bound=bound, value=value, low=low, high=high, verdict=verdict)


def overall(checks: Sequence[Check]) -> str:
    """The worst of all."""
    verdicts = [one["verdict"] for one in checks]
    return next((one for one in (MISSED, NOT_SHOWN) if one in verdicts), SHOWN)


def needed(loss: Loss, goal: Goal, share_held: float) -> int | None:
    """About how many questions in all would show the largest loss; None where none is given or no
    number would."""
    if goal.max_loss is None:
        return None
    count = loss.needed(goal.max_loss)
    return None if count is None else math.ceil(count / share_held)


def _plain(one: Estimate) -> Interval:
    return Interval(value=one.value, low=one.low, high=one.high)


def told_level(level: float) -> str:
    """``95 %``, ``97.5 %``."""
    return f"{100 * level:.4g} %"


def before_asking(goal: Goal, held_out: int, least: float, questions: int, share: float) -> str:
    """The warning that so few held-out questions cannot show what is wanted, whatever they say."""
    bound = 100 * (goal.max_loss or 0.0)
    return (
        f"too few questions: even if no answer changed, {held_out} held-out questions would say "
        f"only that at most {100 * least:.1f} points are lost, not {bound:g}. That takes about "
        f"{math.ceil(questions / share):,} questions in all, each about an image of its own; "
        "whatever is found is not shown"
    )
