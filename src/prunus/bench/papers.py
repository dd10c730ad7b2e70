"""Times that papers printed, beside ours: as ratios to the dense model of the same table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from prunus.bench.clock import ratios
from prunus.bench.report import Case, Row
from prunus.errors import PrunusError
from prunus.io.jsons import parse

#: What a printed column is compared with: parts of the time to the first token, or one of these.
_PARTS: Mapping[str, Sequence[str]] = {
    "language": ("choosing", "prefill", "model", "generate"),
    "before": ("tower", "projector", "choosing"),
    "inside": ("prefill", "model", "generate"),
}
_KINDS = (*_PARTS, "first", "answer", "kv")
_KEYS = {"id", "title", "source", "protocol", "columns", "dense", "rows", "flags"}


@cache
def _texts() -> dict[str, bytes]:
    folder = files("prunus.bench").joinpath("published")
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".json"))
    return {name: folder.joinpath(name).read_bytes() for name in names}


def papers() -> dict[str, dict[str, Any]]:
    """All tables by id.

    Raises:
        PrunusError: a file that does not say what it should; names it.
    """
    tables = [check_paper(parse(text, name), name) for name, text in _texts().items()]
    return {table["id"]: table for table in tables}


def check_paper(found: Any, place: str) -> dict[str, Any]:
    """``found`` as a table: each of its values is a positive number of a column that can be
    compared.

    Raises:
        PrunusError: it is not; ``place`` starts the message.
    """
    if not isinstance(found, dict) or set(found) != _KEYS:
        raise PrunusError(f"{place}: a table has {', '.join(sorted(_KEYS))}")
    columns = found["columns"]
    if not columns or not set(columns.values()) <= set(_KINDS):
        raise PrunusError(f"{place}: columns are compared with {', '.join(_KINDS)}")
    for name, values in [("dense", found["dense"])] + [
        (row["method"], row["values"]) for row in found["rows"]
    ]:
        right = all(isinstance(one, int | float) and one > 0 for one in values.values())
        if set(values) != set(columns) or not right:
            raise PrunusError(f"{place}, {name}: one number above 0 for each of {list(columns)}")
    table: dict[str, Any] = found
    return table


def beside(table: Mapping[str, Any], case: Case) -> dict[str, Any]:
    """What ``table`` prints, and what ``case`` has for it: ``printed`` and ``ours`` are ratios to
    the dense model, ours as quartiles; None where a method did not run."""
    rows = {row["name"]: row for row in case["rows"]}
    lines = []
    for row in table["rows"]:
        own = rows.get(row["ours"])
        for column, kind in table["columns"].items():
            value, dense = row["values"][column], table["dense"][column]
            ran = own is not None and not own["refused"]
            lines.append(
                {
                    "method": row["method"],
                    "name": row["ours"],
                    "column": column,
                    "value": value,
                    "dense": dense,
                    "printed": value / dense,
                    "ours": ratio(own, rows["dense"], kind) if ran and own is not None else None,
                }
            )
    about = {key: table[key] for key in ("id", "title", "source", "protocol", "flags")}
    return {**about, "lines": lines}


def ratio(own: Row, dense: Row, kind: str) -> list[float]:
    """Quartiles of what ``kind`` names, as a share of the dense model's, round by round."""
    if kind == "kv":
        ours, theirs = (row["kv_bytes"]["measured"] or 0.0 for row in (own, dense))
        return [ours / theirs] * 3
    if kind in _PARTS:
        names = _PARTS[kind]
        ours_theirs = [
            [sum(parts[name] for name in names) for parts in row["rounds"]["parts"]]
            for row in (own, dense)
        ]
    else:
        place = 0 if kind == "first" else -1
        ours_theirs = [[one[place] for one in row["rounds"]["stamps"]] for row in (own, dense)]
    return list(ratios(*ours_theirs))
