"""A reproduction as Markdown: published above, measured below."""

from __future__ import annotations

from collections.abc import Sequence

from prunus.reproduce.builtin import BUILT_IN
from prunus.reproduce.library import benchmarks, protocols
from prunus.reproduce.result import Line, Reproduction


def markdown(found: Reproduction) -> str:
    """The table with what made it, and everything that is missing from it."""
    parts = [f"# {found['title']}\n", f"{heading(found)}\n", table(found)]
    if left := [f"{one['row']} {one['budget']:g}: {one['why']}" for one in found["left_out"]]:
        parts.append(_list("Rows that were not measured", list(dict.fromkeys(left))))
    if told := meanings(found):
        parts.append(_list("What columns are", told))
    if missing := [f"{name}: {why}" for name, why in found["not_measured"].items()]:
        parts.append(_list("Columns that were not measured", missing))
    if refused := [f"{_name(one)}: {job}: {why}" for one, job, why in refusals(found)]:
        parts.append(_list("Refused", refused))
    flags = [
        f"{one['row']} {one['budget']:g}: {flag}" for one in found["lines"] for flag in one["flags"]
    ]
    if known := [*found["notes"], *dict.fromkeys(flags)]:
        parts.append(_list("Known of the published numbers", known))
    parts.append(_list("Made by", [f"{key}: {value}" for key, value in found["made"].items()]))
    return "\n".join(parts)


def heading(found: Reproduction) -> str:
    """What stands beside what."""
    where = f"Published: {found['source']}, {found['paper_model']}."
    if found["other_model"] is not None:
        return (
            f"{where} Measured: **ANOTHER MODEL, {found['other_model']}, on built-in questions**: "
            "this shows that the whole way works, and says nothing about the published numbers."
        )
    return f"{where} Measured: {found['made'].get('model', '')}, {protocols()[found['protocol']]}."


def refusals(found: Reproduction) -> list[tuple[Line, str, str]]:
    """Lines, jobs and reasons of what was refused."""
    return [(one, job, why) for one in found["lines"] for job, why in one["why_not"].items()]


def table(found: Reproduction) -> str:
    """Each cell: published / measured."""
    names = ["row", "budget", "measured with", *map(label, found["columns"]), "relative %"]
    rows = [
        [
            one["row"],
            f"{one['budget']:g}" if one["budget"] else "",
            asked(one),
            *(
                _cell(one["published"].get(name), one["measured"].get(name))
                for name in found["columns"]
            ),
            _cell(one["published_relative"], one["measured_relative"]),
        ]
        for one in found["lines"]
    ]
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(one)} |\n" for one in lines)


#: Columns that are called otherwise than in the papers: there, 1,048,576 bytes are a MB, and it is
#: the text that says of what FLOPs are.
_LABELS = {"FLOPs %": "LLM FLOPs %", "KV MB": "KV MiB", "KV %": "KV cache %"}


def label(column: str) -> str:
    """What a column is called in tables."""
    return _LABELS.get(column, column)


def meanings(found: Reproduction) -> list[str]:
    """What the columns with costs count, and what is related."""
    known, told = benchmarks(), []
    for name in found["columns"]:
        if found["other_model"] is None and name in known and known[name].kind == "formula":
            told.append(f"{label(name)}: {known[name].note}")
        elif found["other_model"] is not None and name in BUILT_IN:
            told.append(f"{label(name)}: {BUILT_IN[name]}")
    if found["other_model"] is not None:
        told.append("relative %: of the built-in questions; nothing published is like it")
    return told


def asked(one: Line) -> str:
    """The method and what it was asked to keep."""
    if one["keep"] is None:
        return one["method"]
    return f"{one['method']}, {one['keep']}" + (" (true)" if one["counts"] == "true" else "")


def number(value: float | None) -> str:
    """One decimal, none from a thousand on, nothing for nothing."""
    if value is None:
        return "-"
    return (
        f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    )


def _cell(published: float | None, measured: float | None) -> str:
    return f"{number(published)} / {number(measured)}"


def _name(one: Line) -> str:
    return f"{one['row']} {one['budget']:g} ({asked(one)})"


def _list(title: str, lines: Sequence[str]) -> str:
    return f"\n## {title}\n\n" + "".join(f"* {line}\n" for line in lines)
