"""The tables of an evaluation, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from prunus.evaluate.properties import Property
from prunus.evaluate.summary import Row
from prunus.results.stats import Estimate


def accuracy_table(rows: Sequence[Row]) -> str:
    """Budgets nominal and true, cost, accuracy, and what changed against the dense model."""
    head = (
        "method", "tokens asked for", "true mean per layer", "last layer", "in KV cache",
        "LLM FLOPs", "all FLOPs", "KV bytes", "accuracy % [95 %]", "difference, points [95 %]",
        "right→wrong", "wrong→right",
    )  # fmt: skip
    return _markdown(head, [[_title(row), *_budget(row), *_result(row)] for row in rows])


def type_table(rows: Sequence[Row]) -> str:
    """Accuracy in percent for each question type, with 95 % intervals."""
    types = list(rows[0].by_type)
    lines = [
        [_title(row), _whole(row.nominal), *(_percent(row.by_type[kind]) for kind in types)]
        for row in rows
    ]
    return _markdown(("method", "tokens asked for", *types), lines)


def evidence_table(rows: Sequence[Row]) -> str:
    """What was kept of the objects, for rows of which it is known; empty if there is none."""
    lines = [
        [
            _title(row),
            _whole(row.nominal),
            _share(row.objects),
            _share(row.asked),
            "" if row.ranking is None else f"{row.ranking:.3f}",
        ]
        for row in rows
        if row.objects is not None
    ]
    head = ("method", "tokens asked for", "objects kept", "asked-about kept", "AUROC of the score")
    return _markdown(head, lines) if lines else ""


def property_table(properties: Sequence[Property]) -> str:
    """Properties of the task, met or not; empty if there is none."""
    words = {True: "met", False: "**not met**"}
    lines = [[p.name, p.wanted, p.measured, words[p.met]] for p in properties]
    return _markdown(("property at 11.1 %", "wanted", "measured", ""), lines) if lines else ""


def _budget(row: Row) -> list[str]:
    found = row.figures
    if not found:
        return ["" if row.name != "dense" else "all", *[""] * 6]
    return [
        "its own count" if row.nominal is None else _whole(row.nominal),
        f"{found['average']:.1f}",
        f"{found['kept']:.0f}",
        f"{found['resident']:.1f}",
        *(_share(found.get(f"{name}_ratio")) for name in ("llm_flops", "flops", "kv")),
    ]


def _result(row: Row) -> list[str]:
    if row.difference is None or row.changed is None:
        return [_percent(row.accuracy), "", "", ""]
    value, low, high = (100 * number for number in row.difference)
    change = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return [_percent(row.accuracy), change, f"{row.changed.lost:.0f}", f"{row.changed.won:.0f}"]


def _title(row: Row) -> str:
    return f"{row.name} ({len(row.seeds)} seeds)" if len(row.seeds) > 1 else row.name


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _whole(value: int | None) -> str:
    return "" if value is None else str(value)


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines)) + "\n"
