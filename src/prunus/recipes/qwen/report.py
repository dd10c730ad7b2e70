"""Measures ``tiny-qwen`` on images and videos, with the engine and on the unmodified model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.progress import Progress

from prunus.evaluate import (
    EvalSet,
    discrimination,
    evaluate,
    load_builtin_set,
    make_cells,
    summarise,
)
from prunus.evaluate.cells import BLIND, GROUND_TRUTH, OTHER
from prunus.evaluate.summary import Row
from prunus.evaluate.table import property_table
from prunus.recipes.tables import curve_table, percent
from prunus.results.stats import Estimate

_SETS = ("sizes", "videos")
_CELLS = (BLIND, OTHER, GROUND_TRUTH, "random", "uniform")
#: Read-outs of the training log: of the first stage, and of answers about images and videos.
_SHOWN = ("kind", "digit", "motion")


def measure(model: Any, processor: Any, limit: int | None = None) -> dict[str, Any]:
    """Accuracy dense, blind, with the image of another scene, and with three choices of tokens at
    each budget, for both sets; ``limit`` asks only so many questions of each."""
    cells = make_cells(_CELLS, seeds=(0,))
    sets = {name: load_builtin_set(name).first(limit) for name in _SETS}
    found = {}
    with Progress() as progress:
        total = len(cells) * sum(len(data.queries) for data in sets.values())
        task = progress.add_task("measuring", total=total)
        for name, data in sets.items():
            outcomes = evaluate(
                model, processor, data, cells, step=lambda count: progress.advance(task, count)
            )
            found[name] = _plain(data, summarise(data, outcomes))
    return found


def _plain(data: EvalSet, rows: Sequence[Row]) -> dict[str, Any]:
    shares = [data.chance[query.type] for query in data.queries]
    return {
        "name": data.name,
        "questions": len(data.queries),
        "tokens": next((row.figures["original"] for row in rows if row.figures), None),
        "chance": {"overall": sum(shares) / len(shares), **data.chance},
        "accuracy": {_title(row): _shares(row) for row in rows},
        "properties": property_table(discrimination(data, rows)),
    }


def _title(row: Row) -> str:
    return row.name if row.keep is None else f"{row.name} {100 * float(row.keep):.1f} %"


def _shares(row: Row) -> dict[str, dict[str, float]]:
    kinds: dict[str, Estimate] = {"overall": row.accuracy, **row.by_type}
    return {
        kind: {"accuracy": round(e.value, 4), "low": round(e.low, 4), "high": round(e.high, 4)}
        for kind, e in kinds.items()
    }


def as_markdown(results: dict[str, Any]) -> str:
    """The tables of the report."""
    parts = []
    for found in results["sets"].values():
        kinds = list(found["chance"])
        lines = [
            f"**{found['name']}**: {found['questions']} questions, "
            f"{found['tokens']:.0f} visual tokens on average",
            "",
            "| | " + " | ".join(kinds) + " |",
            "|---" * (len(kinds) + 1) + "|",
        ]
        for name, table in found["accuracy"].items():
            lines.append(f"| {name} | " + " | ".join(percent(table[k]) for k in kinds) + " |")
        chance = (f"{100 * found['chance'][kind]:.1f}" for kind in kinds)
        lines.append("| chance | " + " | ".join(chance) + " |")
        parts += ["\n".join(lines), found["properties"].strip()]
    names = {name for row in results["curve"] for name in row}
    answers = sorted(n for n in names if n.removeprefix("video-") in _asked(results))
    shown = tuple(dict.fromkeys((*_SHOWN, "mean", "video-mean", *answers)))
    return "\n\n".join([*parts, curve_table(results["curve"], shown)])


def _asked(results: dict[str, Any]) -> set[str]:
    return {kind for found in results["sets"].values() for kind in found["chance"]}
