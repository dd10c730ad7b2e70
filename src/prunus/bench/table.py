"""Benchmarks in words: tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunus.bench.report import Case, Quartiles, Row
from prunus.bench.splits import PARTS

#: Quartiles of the dense model's times that are farther apart than this share of them are noise
#: that hides small differences.
NOISY = 0.1

COLUMNS = (
    "method",
    "tokens",
    "TTFT ms",
    "/ dense",
    "/ told",
    "/ bare",
    "ms/token",
    "/ plain",
    "tok/s",
    "KV MB",
)

PAPER_COLUMNS = ("method", "printed", "pruned / dense", "ratio", "ratio here")


def title(case: Case) -> str:
    """What was timed."""
    scale = case["about"].get("scale", 1.0)
    size = "" if scale == 1.0 else f" at scale {scale:g}"
    several = "" if case["batch"] == 1 else f"s, batch {case['batch']}"
    return (
        f"{case['model']}{size}: {case['parameters'] / 1e6:,.0f} M parameters, "
        f"{case['prompt_tokens']} tokens in the prompt{several}, {case['visual_tokens']:.0f} "
        f"visual, {case['attention']}"
    )


def lines(case: Case) -> list[list[str]]:
    """A row of cells for each of :data:`COLUMNS`."""
    return [_line(row) for row in case["rows"]]


def _line(row: Row) -> list[str]:
    if row["refused"]:
        return [row["name"], "refused", *[""] * (len(COLUMNS) - 2)]
    first, each = row["first_ratio"], row["token_ratio"]
    token = "" if row["token"] is None else f"{1e3 * row['token'][1]:.2f}"
    if token and row["name"] != "dense" and each["dense"] is not None:
        token += f" ({each['dense'][1]:.2f})"
    longest = row["lengths"][-1]
    held = row["kv_bytes"]["measured"]
    return [
        row["name"],
        f"{row['tokens']['average']:.0f}",
        milliseconds(row["first"]),
        "" if row["name"] == "dense" else spread(first["dense"]),
        spread(first["told"]),
        spread(first["bare"]),
        token,
        spread(each["bare"]),
        f"{longest['per_second']:.1f}",
        "" if held is None else f"{held / 1e6:.1f}",
    ]


def milliseconds(values: Quartiles) -> str:
    """A median."""
    return f"{1e3 * values[1]:.1f}"


def spread(values: Quartiles | None) -> str:
    """Median and quartiles."""
    return "" if values is None else f"{values[1]:.3f} [{values[0]:.2f}, {values[2]:.2f}]"


def parts_lines(case: Case) -> list[list[str]]:
    """Where the time to the first token goes: a row for each method, a cell for each part, ms."""
    return [
        [row["name"], *map(milliseconds, [*(row["parts"][part] for part in PARTS), row["first"]])]
        for row in case["rows"]
        if not row["refused"]
    ]


def remarks(case: Case) -> list[str]:
    """What has to be known beside the numbers."""
    found = []
    if case["decode"] is not None:
        found.append(
            f"decoding the picture (PIL and processor): {milliseconds(case['decode'])} ms, "
            "beside all of this"
        )
    if case["noise"] > NOISY:
        found.append(
            f"noisy: the middle half of the dense model's times is {100 * case['noise']:.0f} % "
            "wide; look at ratios and their quartiles alone, or use an idle machine and more "
            "--rounds"
        )
    for row in case["rows"]:
        if row["refused"]:
            found.append(f"{row['name']} is refused: {row['refused']}")
        elif row["no_bare"]:
            found.append(f"{row['name']} has no plain loop: {row['no_bare']}")
    return found


def made_line(made: dict[str, Any]) -> str:
    """The machine, in a line."""
    where = made.get("gpu") or f"{made['cpu']}, {made['threads']} threads of {made['cores']}"
    clocks = made["before"].get("clocks") if made.get("gpu") else None
    told = f", SM clock {clocks['clocks.sm']} of {clocks['clocks.max.sm']} MHz" if clocks else ""
    if made.get("gpu") and not clocks:
        told = ", clocks unknown (no nvidia-smi)"
    versions = made["versions"]
    return (
        f"{where}{told}; {made['settings']['dtype']}; torch {versions['torch']}, transformers "
        f"{versions['transformers']}; {made['settings']['rounds']} rounds"
    )


def paper_lines(table: dict[str, Any]) -> list[list[str]]:
    """A row of cells for each of :data:`PAPER_COLUMNS`."""
    return [
        [
            line["method"],
            line["column"],
            f"{line['value']:g} / {line['dense']:g}",
            f"{line['printed']:.3f}",
            spread(line["ours"]) or "-",
        ]
        for line in table["lines"]
    ]


def paper_remarks(table: dict[str, Any]) -> list[str]:
    """Where the numbers are from, and what is doubtful about them."""
    return [f"{table['source']}: {table['protocol']}", *table["flags"]]


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(text + ["| " + " | ".join(row) + " |" for row in rows])
