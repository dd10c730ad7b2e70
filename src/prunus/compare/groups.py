"""The rows of a run as tables show them: by budget, what is the same only once, and the best first
(of equals the one that costs less)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prunus.compare.contract import Row, Run
from prunus.compare.verdicts import cells_of


@dataclass(frozen=True)
class Line:
    """A row, which stands for both ``meanings`` where both are the same."""

    row: Row
    meanings: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The lines of one budget: ``asked`` as a share or a count, None for methods that find their
    own; ``nominal``: the same as visual tokens. Each list has the best first; ``refused`` those
    without answers."""

    asked: float | None
    nominal: int | None
    true: Sequence[Line]
    nominally: Sequence[Line]
    own: Sequence[Line]
    refused: Sequence[Row]

    @property
    def name(self) -> str:
        """The budget in words: ``11.1 %, 64 tokens``."""
        if self.asked is None:
            return "no budget"
        share = f"{self.asked:.1%}".replace("%", " %")
        if self.nominal is None:
            return share if self.asked <= 1 else f"{self.asked:g} tokens"
        tokens = f"{self.nominal} tokens"
        return f"{share}, {tokens}" if self.asked <= 1 else tokens


def groups_of(run: Run) -> list[Group]:
    """Those of all budgets of ``run``, the largest first, and at last the methods without one."""
    by_budget: dict[str, list[Row]] = {}
    for row in run["rows"]:
        by_budget.setdefault(row["key"].rpartition("|")[2], []).append(row)
    found = [_group(run, rows) for rows in by_budget.values()]
    return sorted(found, key=lambda one: -_tokens(run, one))


def _tokens(run: Run, group: Group) -> float:
    if group.asked is None:
        return -1.0
    return group.asked * run["tokens"] if group.asked <= 1 else group.asked


def _group(run: Run, rows: Sequence[Row]) -> Group:
    there = [row for row in rows if row["refused"] is None]
    nominal = {row["method"]: row for row in there if row["meaning"] == "nominal"}
    true, shared = [], set()
    for row in there:
        if row["meaning"] == "true":
            other = nominal.get(row["method"])
            same = other is not None and _same(run, row, other)
            true.append(Line(row, ("true", "nominal") if same else ("true",)))
            shared |= {row["method"]} if same else set()
    return Group(
        asked=rows[0]["asked"],
        nominal=next((row["nominal"] for row in rows if row["nominal"] is not None), None),
        true=_best_first(true),
        nominally=_best_first(
            Line(row, ("nominal",)) for name, row in nominal.items() if name not in shared
        ),
        own=_best_first(Line(row, ("own",)) for row in there if row["meaning"] == "own"),
        refused=[row for row in rows if row["refused"] is not None],
    )


def _best_first(lines: Sequence[Line] | Iterator[Line]) -> list[Line]:
    def place(line: Line) -> tuple[float, float]:
        return -line.row["accuracy"]["value"], line.row["cost"]["flops"] or 0.0

    return sorted(lines, key=place)


def _same(run: Run, one: Row, other: Row) -> bool:
    """Whether two rows are of the same answers."""
    marks = [[run["right"].get(cell) for cell in cells_of(row)] for row in (one, other)]
    return marks[0] == marks[1] and one["per_layer"] == other["per_layer"]
