"""What ``prunus compare`` writes and shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunus.cli.console import out, print_result
from prunus.cli.errors import option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from prunus.compare.contract import Comparison, Row, Run
    from prunus.compare.groups import Line


def write(
    comparison: Comparison, output: Path | None, markdown: Path | None, as_json: bool
) -> None:
    """Write files where they are wanted, and show the tables, or all of it as JSON."""
    from prunus.compare import tables
    from prunus.compare.output import write_comparison
    from prunus.io.files import write_text

    written: list[Path] = []
    if output is not None:
        with option("--output", output):
            written = write_comparison(output, comparison)
    if markdown is not None:
        write_text(markdown, tables.markdown(comparison))
        written.append(markdown)
    if as_json:
        print_result({**comparison, "files": [str(path) for path in written]})
        return
    _show(comparison, written)


_COLUMNS = ("method", "budget", "tokens", "LLM %", "all %", "right % [95 %]", "to dense", "time %")


def _show(comparison: Comparison, written: Sequence[Path]) -> None:
    from prunus.compare.cells import LEVEL
    from prunus.compare.page.build import megabytes

    console = out()
    for run in comparison["runs"]:
        console.print(_table(run))
        console.print()
    console.print(_LEGEND.format(level=LEVEL), markup=False, style="dim")
    for note in comparison["notes"]:
        if note.startswith(("refused:", "left out:")):
            console.print(note, markup=False, soft_wrap=True)
    for path in written:
        size = f" ({megabytes(path.stat().st_size)})" if path.suffix == ".html" else ""
        console.print(f"written: {path}{size}", markup=False, soft_wrap=True)


def _table(run: Run) -> Table:
    """The rows of a run, budget by budget; without a frame, so that it fits into 80 columns."""
    from rich.table import Table

    from prunus.compare.groups import Line, groups_of

    groups = groups_of(run)
    every = [line for one in groups for line in (*one.true, *one.nominally, *one.own)]
    timed = any(line.row["cost"]["time"] is not None for line in every)
    table = Table(
        title=f"{run['model']}, {run['questions']} questions of {run['set']}",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for column in _COLUMNS if timed else _COLUMNS[:-1]:
        table.add_column(column, justify="left" if column == "method" else "right")
    width = len(table.columns)
    table.add_row(*_cells(Line(run["dense"], ()))[:width])
    for group in groups:
        table.add_row()
        table.add_row(f"[bold]{group.name}[/]")
        for line in (*group.true, *group.nominally, *group.own):
            table.add_row(*_cells(line)[:width])
        for row in group.refused:
            table.add_row(row["method"], _letters((row["meaning"],)), "refused")
    return table


def _cells(line: Line) -> list[str]:
    from prunus.compare import cells

    row: Row = line.row
    cost, change = row["cost"], ""
    if (one := row["against"].get("dense")) is not None:
        change = f"{100 * one['value']:+.1f}" + ("*" if cells.is_sure(one) else " ")
    return [
        row["method"],
        _letters(line.meanings),
        f"{row['average']:.0f}",
        *(cells.share(one) for one in (cost["llm_flops"], cost["flops"])),
        cells.percent(row["accuracy"]).replace("[", r"\["),
        change,
        cells.seconds(row),
    ]


def _letters(meanings: Sequence[str]) -> str:
    return " ".join(meaning[0] for meaning in meanings if meaning != "own")


_LEGEND = (
    "budget: true (t), nominal (n), or one that is both; tokens: their mean over decoder layers; "
    "LLM, all: FLOPs of the language model and of everything, time: of a prefill, each in percent "
    "of the dense model's; *: p < {level} after Holm's correction"
)
