"""The numbers as text, for the tables that are there without scripts."""

from __future__ import annotations

from typing import Any

from prunus.compare.contract import Comparison, Interval, Row, Run

_NONE = "\u2013"

#: Headings of the plain tables.
COLUMNS = (
    "method",
    "budget",
    "right, %",
    "to dense",
    "to random",
    "tokens per layer",
    "LLM FLOPs, %",
    "all FLOPs, %",
    "KV cache, %",
    "time, %",
)


def plain_runs(comparison: Comparison) -> list[dict[str, Any]]:
    """For each run its name and its rows as texts, the dense model first."""
    return [
        {
            "id": run["id"],
            "about": f"{run['questions']:,} questions about {run['images']:,} {run['kind']}s, "
            f"{run['tokens']:.0f} visual tokens each on average",
            "columns": COLUMNS,
            "rows": [_row(run, row) for row in (run["dense"], *run["rows"])],
        }
        for run in comparison["runs"]
    ]


def _row(run: Run, row: Row) -> dict[str, Any]:
    asked = row["asked"]
    share = None if asked is None else f"{100 * asked:.1f} %" if asked <= 1 else f"{asked:g}"
    budget = row["meaning"] if share is None else f"{share} {row['meaning']}"
    if row["refused"] is not None:
        return {"method": row["method"], "budget": budget, "refused": row["refused"], "cells": []}
    cost = row["cost"]
    time = None if cost["time"] is None else cost["time"]["median"]
    cells = [
        _interval(row["accuracy"], signed=False),
        _interval(row["against"].get("dense"), signed=True),
        _interval(row["against"].get("random"), signed=True),
        f"{row['average']:.1f}",
        *map(_percent, (cost["llm_flops"], cost["flops"], cost["kv"], time)),
    ]
    return {"method": row["method"], "budget": budget, "refused": None, "cells": cells}


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f}"


def _interval(value: Interval | None, signed: bool) -> str:
    if value is None:
        return _NONE
    sign = "+" if signed else ""
    low, high = 100 * value["low"], 100 * value["high"]
    text = f"{100 * value['value']:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"
    return text.replace("-", "\u2212")
