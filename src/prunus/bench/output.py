"""Benchmarks as files."""

from __future__ import annotations

import json
from pathlib import Path

from prunus.bench.chart import draw_chart
from prunus.bench.report import Bench
from prunus.bench.table import (
    PAPER_COLUMNS,
    made_line,
    paper_lines,
    paper_remarks,
    plain_table,
    remarks,
    tables,
    title,
)
from prunus.io.files import check_place, write_text

_FILES = ("bench.json", "bench.md", "bench.png")


def check_output(folder: Path) -> None:
    """Find out, before minutes of work, that the files can be written.

    Raises:
        PrunusFileError: they cannot.
    """
    for name in _FILES:
        check_place(folder / name)


def write_bench(folder: Path, bench: Bench) -> list[Path]:
    """Write bench.json, bench.md and bench.png into ``folder``.

    Raises:
        PrunusError: matplotlib is not installed.
        PrunusFileError: they cannot be written.
    """
    paths = [folder / name for name in _FILES]
    write_text(paths[0], json.dumps(bench, indent=1, allow_nan=False) + "\n")
    write_text(paths[1], markdown(bench))
    draw_chart(bench, paths[2])
    return paths


def markdown(bench: Bench) -> str:
    """The tables."""
    parts = ["# prunus bench", f"`{bench['made']['command']}`", made_line(bench["made"])]
    for case in bench["cases"]:
        parts += [
            f"## {title(case)}",
            *(f"{name}\n\n{plain_table(head, rows)}" for name, head, rows in tables(case)),
            *remarks(case),
        ]
    for table in bench["published"]:
        parts += [
            f"## Printed elsewhere: {table['title']}",
            plain_table(PAPER_COLUMNS, paper_lines(table)),
            *paper_remarks(table),
        ]
    return "\n\n".join([*parts, *bench["notes"]]) + "\n"
