"""Whether the task tells a good choice of tokens from a bad one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.evaluate.cells import BLIND, GROUND_TRUTH
from prunus.evaluate.summary import Row
from prunus.tasks.sets import EvalSet

_BUDGET = 1 / 9
_NEAR = 0.10  # how far above chance the blind model may be


@dataclass(frozen=True)
class Property:
    """A property that the task should have: what was ``wanted``, what was ``measured``, and whether
    it is ``met``."""

    name: str
    wanted: str
    measured: str
    met: bool


def discrimination(data: EvalSet, rows: Sequence[Row]) -> list[Property]:
    """The properties of the task that do not depend on any published method, at 11.1 %: those of
    the controls that were asked.

    Empty where no control was asked that is there for this alone (random and uniform are methods,
    too), and for question sets without scenes: nothing is known about their objects.
    """
    if not data.has_scenes or not any(row.name in (GROUND_TRUTH, BLIND) for row in rows):
        return []
    found = (_truth(rows), _loss(rows, "random", 0.15), _loss(rows, "uniform", 0.08))
    return [one for one in (*found, _blind(data, rows)) if one is not None]


def _truth(rows: Sequence[Row]) -> Property | None:
    truth, dense = _find(rows, GROUND_TRUTH, pruned=True), rows[0].accuracy.value
    if truth is None:
        return None
    of = f" ({truth.accuracy.value / dense:.2%})" if dense else ""
    return Property(
        "ground truth keeps the accuracy",
        "at least 95 % of dense",
        f"{_points(truth)} of {100 * dense:.1f} %{of}",
        truth.accuracy.value >= 0.95 * dense,
    )


def _loss(rows: Sequence[Row], name: str, least: float) -> Property | None:
    row = _find(rows, name, pruned=True)
    if row is None or row.difference is None:
        return None
    lost = row.difference
    title, wanted = f"{name} loses accuracy", f"at least {100 * least:.0f} points"
    measured = f"{-100 * lost.value:.1f} points [{-100 * lost.high:.1f}, {-100 * lost.low:.1f}]"
    return Property(title, wanted, measured, -lost.value >= least)


def _blind(data: EvalSet, rows: Sequence[Row]) -> Property | None:
    row = _find(rows, BLIND, pruned=False)
    if row is None:
        return None
    chance = sum(data.chance[query.type] for query in data.queries) / len(data.queries)
    wanted = f"within {100 * _NEAR:.0f} points of chance ({100 * chance:.1f} %)"
    return Property(
        "blind is near chance", wanted, _points(row), row.accuracy.value <= chance + _NEAR
    )


def _find(rows: Sequence[Row], name: str, pruned: bool) -> Row | None:
    """The row of a control, at the budget of the property where it prunes."""
    for row in rows:
        if row.name != name:
            continue
        if not pruned or _at_budget(row):
            return row
    return None


def _at_budget(row: Row) -> bool:
    """Whether a row keeps a ninth, given as a share or (of images of one size) as a count."""
    if isinstance(row.keep, float):
        return abs(row.keep - _BUDGET) < 1e-6
    return row.nominal == round(row.figures["original"] * _BUDGET)


def _points(row: Row) -> str:
    value, low, high = row.accuracy
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
