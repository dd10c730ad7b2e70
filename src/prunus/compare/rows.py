"""From answers to the rows of a run: tokens and costs, seeds taken together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunus.compare.columns import DENSE, OWN
from prunus.compare.contract import Cost, Question, Row, Run, Time
from prunus.compare.course import Course, Ledger
from prunus.compare.statistics import Right, stacked
from prunus.compare.verdicts import cell_key, judge
from prunus.errors import PrunusError
from prunus.evaluate.scoring import is_right
from prunus.method.budget import resolve_keep

#: Answers of one run that are written into the comparison; of more, only which are right.
MOST_ANSWERS = 300_000


def make_run(course: Course, rival: str | None, times: Mapping[str, Time]) -> Run:
    """The run with all of its rows; ``times`` by the keys of rows.

    Raises:
        PrunusError: nothing is known of the dense model, with which everything is compared, or no
            question could be asked.
    """
    numbers = course.numbers
    if not numbers:
        raise PrunusError(course.nothing)
    queries = [course.data.queries[n] for n in numbers]
    rows: dict[str, Row] = {}
    right: dict[str, Right] = {}
    for key, ledgers in by_row(course.ledgers).items():
        rows[key] = _head(key, ledgers)
        if rows[key]["refused"] is None:
            right[key] = stacked([_right(course, one) for one in ledgers])
            rows[key] = _full(rows[key], course, ledgers, times.get(key))
            if (keep := ledgers[0].column.cell.keep) is not None:
                tokens = round(float(np.mean(_values(ledgers, numbers, "original"))))
                rows[key]["nominal"] = resolve_keep(keep, tokens)
    if DENSE not in right:
        raise PrunusError(f"the unmodified model cannot be asked: {rows[DENSE]['refused']}")
    images = np.array([query.image for query in queries])
    judge(rows, right, images, [query.type for query in queries], rival)
    dense = rows.pop(DENSE)
    cells = {
        cell_key(key, one.column.cell.seed): one
        for key, ledgers in by_row(course.ledgers).items()
        if key in right
        for one in ledgers
    }
    few = len(cells) * len(numbers) <= MOST_ANSWERS
    marks = {
        key: "".join("01"[int(one)] for one in _right(course, own)) for key, own in cells.items()
    }
    return Run(
        id=course.id,
        model=course.spec.model,
        set=course.data.name,
        kind="video" if course.data.clips else "image",
        questions=len(numbers),
        images=len({query.image for query in queries}),
        tokens=dense["average"],
        types=list(dict.fromkeys(query.type for query in queries)),
        chance=dict(course.data.chance),
        rival=rival if any(row["method"] == rival for row in rows.values()) else None,
        dense=dense,
        rows=list(rows.values()),
        questions_list=[
            Question(image=one.image, type=one.type, text=one.text, answer=one.answer)
            for one in queries
        ],
        answers={key: [own.given[n].text for n in numbers] for key, own in cells.items() if few},
        right=marks,
    )


def by_row(ledgers: Sequence[Ledger]) -> dict[str, list[Ledger]]:
    """The columns of each row, by its key: one for each seed. Rows stand in the order of budgets,
    of meanings, and of methods."""
    found: dict[str, list[Ledger]] = {}
    for ledger in ledgers:
        for key in ledger.column.keys:
            found.setdefault(key, []).append(ledger)

    def place(key: str) -> tuple[int, int]:
        cell = found[key][0].column.cell
        keeps = list(dict.fromkeys(one.column.cell.keep for one in ledgers))
        meanings = list(dict.fromkeys(m for one in ledgers for m in one.column.meanings))
        return keeps.index(cell.keep), meanings.index(_meaning(key))

    return {key: found[key] for key in sorted(found, key=place)}


def _meaning(key: str) -> str:
    return OWN if key == DENSE else key.split("|")[-2]


def _right(course: Course, ledger: Ledger) -> list[bool]:
    queries = course.data.queries
    return [is_right(ledger.given[n].text, queries[n].answer) for n in course.numbers]


def _head(key: str, ledgers: Sequence[Ledger]) -> Row:
    cell = ledgers[0].column.cell
    return Row(
        key=key,
        method=cell.name,
        meaning=_meaning(key),
        asked=None if cell.keep is None else float(cell.keep),
        nominal=None,
        refused=next((one.why_not for one in ledgers if one.why_not is not None), None),
    )


def _values(ledgers: Sequence[Ledger], numbers: Sequence[int], name: str) -> list[Any]:
    """One figure of all answers; 0 of those without a cost (nothing was shown)."""
    costs = [one.given[n].cost for one in ledgers for n in numbers]
    return [0.0 if cost is None else cost[name] for cost in costs]


def _full(head: Row, course: Course, ledgers: Sequence[Ledger], time: Time | None) -> Row:
    """``head`` with all that a row says, but for what its answers say."""
    numbers = course.numbers
    costly = ledgers
    if ledgers[0].column.cell.shown == "other":  # as many tokens as its own image has
        costly = [course.dense]

    def mean(name: str) -> float:
        return float(np.mean(_values(costly, numbers, name)))

    layers = [one or [0.0] * course.depth for one in _values(costly, numbers, "per_layer")]
    return Row(
        key=head["key"],
        method=head["method"],
        meaning=head["meaning"],
        asked=head["asked"],
        nominal=head["nominal"],
        refused=None,
        average=mean("average"),
        kept=mean("kept"),
        resident=mean("resident"),
        per_layer=[float(one) for one in np.mean(layers, axis=0)],
        cost=Cost(
            llm_flops=ratio_of(costly, numbers, "llm_flops"),
            flops=ratio_of(costly, numbers, "flops"),
            kv=ratio_of(costly, numbers, "kv"),
            time=time,
        ),
        seeds=[one.column.cell.seed for one in ledgers if one.column.cell.seed is not None],
    )


def ratio_of(ledgers: Sequence[Ledger], numbers: Sequence[int], name: str) -> float | None:
    """Of sums, so that it does not depend on how questions are put together."""
    costs = [one.given[n].cost for one in ledgers for n in numbers]
    if any(cost is None or cost[name] is None for cost in costs):
        return None
    whole = sum(cost[f"dense_{name}"] for cost in costs if cost is not None)
    return float(sum(cost[name] for cost in costs if cost is not None) / whole) if whole else None
