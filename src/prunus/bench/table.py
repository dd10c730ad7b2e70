"""Benchmarks in words: tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunus.bench.clock import FEWEST
from prunus.bench.report import Case, Quartiles, Row
from prunus.bench.splits import PARTS

#: A title, the heads of columns, and rows of cells.
Titled = tuple[str, Sequence[str], list[list[str]]]

#: Quartiles of the dense model's times that are farther apart than this share of them are noise
#: that hides small differences.
NOISY = 0.1

_FIRST = ("method", "ms", "/ dense", "/ told", "/ bare")
_LATER = ("method", "ms/token", "/ dense", "/ plain", "answer / dense", "tok/s")
_LEFT = ("method", "tokens", "all FLOPs / dense", "KV MiB", "peak MiB", "block ms")
_ONE = ("method", "answer / dense", "tok/s")
_MIB = 2**20

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


def tables(case: Case) -> list[Titled]:
    """All that is told of a case, in tables that fit into a terminal of 80 columns."""
    rows = [row for row in case["rows"] if not row["refused"]]
    longest = rows[0]["lengths"][-1]["tokens"]
    found: list[Titled] = [
        ("time to the first token (TTFT):", _FIRST, [_first(row) for row in rows]),
        (
            "where it goes, ms:",
            ("method", *PARTS, "all"),
            [_parts(row) for row in rows],
        ),
    ]
    if longest > 1:
        title = f"further tokens, and whole answers of {longest}:"
        found.append((title, _LATER, [_later(row) for row in rows]))
    else:
        found.append(("answers of one token:", _ONE, [_one(row) for row in rows]))
    title = "visual tokens per layer, FLOPs (with tower and choosing), bytes; the block:"
    return [*found, (title, _LEFT, [_left(row) for row in rows])]


def _first(row: Row) -> list[str]:
    ratio = row["first_ratio"]
    dense = "" if row["name"] == "dense" else spread(ratio["dense"])
    return [
        row["name"],
        milliseconds(row["first"]),
        dense,
        spread(ratio["told"]),
        spread(ratio["bare"]),
    ]


def _parts(row: Row) -> list[str]:
    parts = [row["parts"][part] for part in PARTS]
    return [row["name"], *map(milliseconds, [*parts, row["first"]])]


def _later(row: Row) -> list[str]:
    token, ratio, longest = row["token"], row["token_ratio"], row["lengths"][-1]
    pruned = row["name"] != "dense"
    return [
        row["name"],
        "" if token is None else f"{1e3 * token[1]:.2f}",
        f"{ratio['dense'][1]:.3f}" if pruned and ratio["dense"] is not None else "",
        spread(ratio["bare"]),
        spread(longest["ratio"]) if pruned else "",
        f"{longest['per_second']:.1f}",
    ]


def _one(row: Row) -> list[str]:
    longest = row["lengths"][-1]
    ratio = "" if row["name"] == "dense" else spread(longest["ratio"])
    return [row["name"], ratio, f"{longest['per_second']:.1f}"]


def _left(row: Row) -> list[str]:
    share, held, most = row["flops_ratio"], row["kv_bytes"]["measured"], row["peak_bytes"]
    pruned = row["name"] != "dense"
    return [
        row["name"],
        f"{row['tokens']['average']:.0f}",
        f"{share:.3f}" if pruned and share is not None else "",
        "" if held is None else f"{held / _MIB:.1f}",
        "" if most is None else f"{most / _MIB:.1f}",
        f"{1e3 * row['block_seconds']:.2f}" if pruned else "",
    ]


def milliseconds(values: Quartiles) -> str:
    """A median."""
    return f"{1e3 * values[1]:.1f}"


def spread(values: Quartiles | None) -> str:
    """Median and quartiles."""
    return "" if values is None else f"{values[1]:.3f} [{values[0]:.2f} {values[2]:.2f}]"


def remarks(case: Case) -> list[str]:
    """What has to be known beside the numbers."""
    found = []
    if case["decode"] is not None:
        found.append(
            f"decoding the picture (PIL and processor): {milliseconds(case['decode'])} ms, "
            "beside all of this"
        )
    if (rounds := len(case["rows"][0]["rounds"]["stamps"])) < FEWEST:
        found.append(
            f"{rounds} rounds: quartiles of fewer than {FEWEST} mean little, and ratios not much; "
            f"give --rounds {FEWEST} or more"
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
