"""Comparisons that were made apart, as one: other models and sets, or more methods of the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from prunus.compare.contract import Comparison, Facts, Made, MadeApart, Picture, Row, Run
from prunus.compare.notes import notes_of_rows, notes_of_statistics, own_notes
from prunus.compare.verdicts import cells_of, renewed
from prunus.errors import PrunusFileError

T = TypeVar("T")

#: What a comparison is called that is made of several.
TITLE = "prunus compare"


def joined(comparisons: Sequence[Comparison], rival: str | None = None) -> Comparison:
    """One comparison of all; of one, the same. Every run is judged anew from its marks, so that
    intervals and corrections are those of this version, over all methods of a run.

    Runs of one model on one set become one, with the methods of both; those of others stand beside
    each other, in the order in which they were given.

    Args:
        comparisons: at least one.
        rival: a method that all others are compared with; None: as it was in each run.

    Raises:
        PrunusFileError: two that have a run of one name asked other questions there, or were given
            other answers to the same; names the two.
    """
    found: dict[str, Run] = {}
    for number, one in enumerate(comparisons):
        for run in one["runs"]:
            before = found.get(run["id"])
            found[run["id"]] = run if before is None else _both(before, run, number + 1)
    runs = [renewed(run, rival if rival is not None else run["rival"]) for run in found.values()]
    made = [part for one in comparisons for part in _parts(one["made"])]
    rounds = max((int(one["settings"].get("rounds", 0)) for one in made), default=0)
    own = [note for one in comparisons for note in own_notes(one["notes"])]
    return Comparison(
        format=comparisons[0]["format"],
        title=_only([one["title"] for one in comparisons], TITLE),
        made=made[0] if len(made) == 1 else _made(made),
        notes=[*notes_of_statistics(rounds), *notes_of_rows(runs), *dict.fromkeys(own)],
        budgets=list(dict.fromkeys(keep for one in comparisons for keep in one["budgets"])),
        methods=_methods(comparisons),
        runs=runs,
        pictures=_pictures(comparisons),
        published=_once(
            (table for one in comparisons for table in one["published"]), lambda one: one["id"]
        ),
    )


def _both(before: Run, after: Run, number: int) -> Run:
    """One run of two of the same name; ``number`` is that of the comparison that ``after`` is of.

    Raises:
        PrunusFileError: they are not of the same questions, or the same row has other answers.
    """
    name = before["id"]
    same = ("model", "set", "questions_list")
    if any(before[key] != after[key] for key in same):  # type: ignore[literal-required]
        raise PrunusFileError(
            f"comparison {number} has {name}, too, but not of the same questions "
            f"({before['questions']} of {before['set']}, then {after['questions']} of "
            f"{after['set']}): leave one out, or make both with the same --models, --data and "
            "--limit"
        )
    rows: dict[str, Row] = {before["dense"]["key"]: before["dense"]}
    rows |= {row["key"]: row for row in before["rows"]}
    for row in (after["dense"], *after["rows"]):
        known = rows.get(row["key"])
        rows[row["key"]] = row if known is None else _fuller(known, row)
    right, answers = dict(before["right"]), dict(before["answers"])
    for cell, marks in after["right"].items():
        if right.setdefault(cell, marks) != marks:
            raise PrunusFileError(
                f"comparison {number} has other answers to {name} for {cell}: they are not of the "
                "same weights or version of the method; leave one out, or make it anew"
            )
    for cell, texts in after["answers"].items():
        answers.setdefault(cell, texts)
    scores = {**before.get("scores", {}), **after.get("scores", {})}
    dense = rows.pop(before["dense"]["key"])
    kept = [cell for row in (dense, *rows.values()) for cell in _cells(row)]
    merged: Run = {
        **before,
        "rival": before["rival"] or after["rival"],
        "dense": dense,
        "rows": _ordered(list(rows.values())),
        "right": {cell: right[cell] for cell in kept if cell in right},
        "answers": {cell: answers[cell] for cell in kept if cell in answers},
    }
    if small := before.get("thumbnails", {}) | after.get("thumbnails", {}):
        merged["thumbnails"] = small
    if scores:
        merged["scores"] = scores
    return merged


def _cells(row: Row) -> list[str]:
    return [] if row["refused"] is not None else cells_of(row)


def _fuller(one: Row, other: Row) -> Row:
    """The one that says more: that has answers, then more seeds, then times."""

    def says(row: Row) -> tuple[bool, int, bool]:
        if row["refused"] is not None:
            return False, 0, False
        return True, len(row["seeds"]), row["cost"]["time"] is not None

    return one if says(one) >= says(other) else other


def _ordered(rows: list[Row]) -> list[Row]:
    """By budgets and meanings, in the order in which they come first; methods as they are."""
    budgets = list(dict.fromkeys(row["key"].rpartition("|")[2] for row in rows))
    meanings = list(dict.fromkeys(row["meaning"] for row in rows))
    return sorted(
        rows,
        key=lambda row: (
            budgets.index(row["key"].rpartition("|")[2]),
            meanings.index(row["meaning"]),
        ),
    )


def _pictures(comparisons: Sequence[Comparison]) -> list[Picture]:
    """Those of one question are one, with what all methods show of it."""
    found: dict[tuple[str, int], Picture] = {}
    for one in comparisons:
        for picture in one["pictures"]:
            key = (picture["run"], picture["question"])
            if key in found:
                shown = picture["shown"] | found[key]["shown"]
                found[key] = Picture(**{**found[key], "shown": shown})
            else:
                found[key] = picture
    return list(found.values())


def _methods(comparisons: Sequence[Comparison]) -> dict[str, Facts]:
    """Of several that know a method, the one that knows where it looks: it fitted a model there."""
    found: dict[str, Facts] = {}
    for one in comparisons:
        for name, facts in one["methods"].items():
            if name not in found or (facts["place"] and not found[name]["place"]):
                found[name] = facts
    return found


def _parts(made: Made) -> list[Made]:
    """What made each part of a comparison that was joined before; else the one."""
    apart: list[Made] = dict(made).get("apart", [made])  # type: ignore[assignment]
    return apart


def _made(made: Sequence[Made]) -> MadeApart:
    """What made them, with all that differs: texts side by side, times added."""
    versions: dict[str, str] = {}
    for name in dict.fromkeys(name for one in made for name in one["versions"]):
        versions[name] = _listed(one["versions"].get(name, "none") for one in made)
    dtype: dict[str, str] = {}
    for one in made:
        for model, kind in one["dtype"].items():
            dtype[model] = _listed([*dtype.get(model, kind).split(", "), kind])
    return MadeApart(
        command="\n".join(dict.fromkeys(one["command"] for one in made)),
        versions=versions,
        device=_listed(one["device"] for one in made),
        threads=max(one["threads"] for one in made),
        dtype=dtype,
        seconds=sum(one["seconds"] for one in made),
        date=max(one["date"] for one in made),
        settings={},
        apart=list(made),
    )


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _only(values: Sequence[T], otherwise: T) -> T:
    """What all of ``values`` are, or ``otherwise``."""
    return values[0] if all(one == values[0] for one in values) else otherwise


def _once(values: Iterable[T], key: Callable[[T], Any]) -> list[T]:
    found: dict[Any, T] = {}
    for value in values:
        found.setdefault(key(value), value)
    return list(found.values())
