"""Published beside measured: what a reproduction comes to, as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from prunus.reproduce.builtin import ACCURACY
from prunus.reproduce.library import benchmarks
from prunus.reproduce.recipe import Arm, Recipe

#: Version of :class:`Reproduction`.
FORMAT = 1


class Line(TypedDict):
    """One arm beside the line that it stands for; ``why_not`` says by job what was refused, and
    ``relative`` are means of scores over those of the dense model, in %, over the same columns."""

    row: str
    budget: float
    method: str
    keep: str | None
    counts: str
    note: str
    flags: list[str]
    published: dict[str, float | None]
    measured: dict[str, float]
    published_relative: float | None
    measured_relative: float | None
    facts: dict[str, Any]
    why_not: dict[str, str]


class Left(TypedDict):
    """A published line that nothing was measured for, and why."""

    row: str
    budget: float
    why: str


class Reproduction(TypedDict):
    """All of it. ``other_model``: what stands for the model of the paper, None if nothing does;
    ``columns``: those of the table that something was measured in, and those that only we have."""

    format: int
    recipe: str
    title: str
    source: str
    paper_model: str
    other_model: str | None
    protocol: str
    made: dict[str, Any]
    columns: list[str]
    lines: list[Line]
    left_out: list[Left]
    not_measured: dict[str, str]
    notes: list[str]


def is_score(column: str) -> bool:
    """Whether a published column is a score on a benchmark."""
    one = benchmarks().get(column)
    return one is not None and one.kind in ("task", "closed") and not one.note.startswith("a part")


def line(recipe: Recipe, arm: Arm) -> Line:
    """``arm`` with what was published for it, before anything is measured."""
    row = recipe.published(arm)
    values = recipe.table["dense"] if row is None else row["values"]
    return Line(
        row=arm.row,
        budget=arm.budget,
        method=arm.method,
        keep=arm.keep,
        counts=arm.meaning,
        note=arm.note,
        flags=list(row["flags"]) if row is not None else [],
        published=dict(values),
        measured={},
        published_relative=None,
        measured_relative=None,
        facts={},
        why_not={},
    )


def relate(lines: Sequence[Line], other_model: bool = False) -> None:
    """Fill in the relative scores; the first line is the dense model.

    Published ones are over the columns that were measured too, or, where none of these are scores
    of the paper, over all of its scores. Where an ``other_model`` was asked other questions there
    are none: they would look like something to compare with.
    """
    dense = lines[0]
    for one in lines:
        ours = [name for name in one["measured"] if name in dense["measured"]]
        scores = [name for name in ours if is_score(name) or name == ACCURACY]
        one["measured_relative"] = _mean(one["measured"], dense["measured"], scores)
        both = [name for name in scores if name in one["published"]]
        named = both or [name for name in one["published"] if is_score(name)]
        if not other_model:
            one["published_relative"] = _mean(one["published"], dense["published"], named)


def _mean(
    own: Mapping[str, float | None], dense: Mapping[str, float | None], names: Sequence[str]
) -> float | None:
    ratios = []
    for name in names:
        value, whole = own.get(name), dense.get(name)
        if value is not None and whole:
            ratios.append(100 * value / whole)
    return sum(ratios) / len(ratios) if ratios else None


def columns_of(recipe: Recipe, lines: Sequence[Line]) -> list[str]:
    """Columns in which something was measured: the table's first, then those that we have alone."""
    ours = list(dict.fromkeys(name for one in lines for name in one["measured"]))
    theirs = [name for name in recipe.table["benchmarks"] if name in ours]
    return theirs + [name for name in ours if name not in theirs]
