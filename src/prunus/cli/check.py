"""``prunus check``: is pruning right on this model, with these versions and this backend?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import out, print_result, quiet_transformers, steps_of
from prunus.cli.errors import BadInput, reading
from prunus.cli.options import AsJson, Device, DType, Model

if TYPE_CHECKING:
    from prunus.checking import Cell, CheckReport


def check(
    model: Model = "tiny-llava",
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "--method",
            metavar="NAME,NAME",
            help="Which: names, presets (clse@released), path/to/file.py:Class. Default: all.",
        ),
    ] = None,
    video: Annotated[
        bool, typer.Option("--video", help="Ask about a short video instead of a picture.")
    ] = False,
    attention: Annotated[
        str | None,
        typer.Option(help="eager, sdpa, flash_attention_2 ...; default: the model's own choice."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--report", help="Print one Markdown block for a bug report.")
    ] = False,
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> int:
    """Check every method on a model: neutral settings, batches, cuts, caches, a clean exit.

    Exit code 0: everything is right, or refused with a reason; 1: something is wrong.
    """
    from prunus.checking import check as check_model
    from prunus.cli.loading import load_model

    if markdown and as_json:
        raise BadInput("--report and --json are two forms of the same: choose one")
    chosen = None if methods is None else _names(methods)
    quiet_transformers()
    network, processor = load_model(model, dtype, device)
    if attention is not None:
        with reading(f"--attention {attention}"):
            network.set_attn_implementation(attention)
    with steps_of("checking") as started, reading("this model cannot be checked"):
        report = check_model(network, processor, chosen, video=video, started=started)
    if as_json:
        print_result({"model": model, **report.facts()})
    elif markdown:
        typer.echo(report.markdown())
    else:
        _show(report, model)
    return 0 if report.ok else 1


def _names(methods: str) -> list[str]:
    """The names, each of which there is: said before a model is loaded."""
    from prunus.inference.named import parse_one

    names = [name.strip() for name in methods.split(",")]
    for name in names:
        parse_one(name)
    return names


def _show(report: CheckReport, model: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from prunus.checking import COLUMNS

    title = f"{model}: largest error of the logits"
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method")
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in report.rows:
        cells = [_cell(row.cells[column]) for column in COLUMNS]
        table.add_row(f"[bold]{escape(row.method)}[/bold] {escape(row.setting)}", *cells)
    console = out()
    console.print(table)
    for column, meaning in COLUMNS.items():
        console.print(f"[dim]{column:<8} {meaning}[/dim]", soft_wrap=True)
    environment: dict[str, Any] = dict(report.environment)
    words = ", ".join(f"{name} {environment[name]}" for name in ("attention", "dtype", "device"))
    console.print(f"[dim]{escape(words)}[/dim]", soft_wrap=True)
    for line in [*report.remarks, *report.notes]:
        console.print(line, markup=False, soft_wrap=True)
    console.print(report.summary, markup=False, soft_wrap=True)


def _cell(cell: Cell) -> str:
    colours = {"ok": "green", "failed": "bold red", "refused": "yellow", "skipped": "dim"}
    return f"[{colours[cell.status]}]{cell}[/]"
