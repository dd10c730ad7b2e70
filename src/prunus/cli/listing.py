"""``prunus methods`` and ``prunus models``: what there is, and what goes together."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import out, print_json

if TYPE_CHECKING:
    from prunus.families import Family
    from prunus.method.base import Method

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def methods(as_json: Json = False) -> None:
    """List methods with parameters, defaults, paper, kind and supported families."""
    from prunus.families import families
    from prunus.method.base import methods as known_methods

    known, homes = known_methods(), families()
    described: dict[str, dict[str, Any]] = {
        name: {
            "summary": method.summary,
            "paper": method.paper,
            "kind": method.kind,
            "parameters": _parameters(method),
            "families": [home for home, family in homes.items() if supports(method, family)],
        }
        for name, method in known.items()
    }
    if as_json:
        print_json(described)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="methods", title_justify="left", show_lines=True)
    for column in ("method", "what it keeps", "parameters (default)", "families"):
        table.add_column(column, overflow="fold")
    for name, facts in described.items():
        lines = [
            f"{param['name']}={_show(param['default'])}  [dim]{escape(param['help'])}[/dim]"
            for param in facts["parameters"]
        ]
        what = f"{escape(facts['summary'])}\n[dim]{facts['kind']}; {escape(facts['paper'])}[/dim]"
        table.add_row(f"[bold]{name}[/bold]", what, "\n".join(lines), ", ".join(facts["families"]))
    out().print(table)


def models(as_json: Json = False) -> None:
    """List built-in models, supported families and which method runs on which."""
    from prunus.builtin import BUILTIN
    from prunus.families import families
    from prunus.method.base import methods as known_methods

    known, homes = known_methods(), families()
    matrix = {
        name: {home: supports(method, family) for home, family in homes.items()}
        for name, method in known.items()
    }
    if as_json:
        print_json(
            {
                "builtin": dict(BUILTIN),
                "families": {
                    name: {"model_types": list(family.model_types), "summary": family.summary}
                    for name, family in homes.items()
                },
                "support": matrix,
            }
        )
        return
    from rich.table import Table

    console = out()
    table = Table(title="built-in models (work offline)", title_justify="left")
    table.add_column("model", style="bold")
    table.add_column("what it is")
    for name, summary in BUILTIN.items():
        table.add_row(name, summary)
    console.print(table)
    table = Table(title="families (any local folder or Hugging Face id)", title_justify="left")
    for column in ("family", "model_type", "what it covers"):
        table.add_column(column)
    for name, family in homes.items():
        table.add_row(f"[bold]{name}[/bold]", ", ".join(family.model_types), family.summary)
    console.print(table)
    table = Table(title="methods on families", title_justify="left")
    table.add_column("method", style="bold")
    for home in homes:
        table.add_column(home, justify="center")
    for name, row in matrix.items():
        table.add_row(name, *("yes" if row[home] else "no" for home in homes))
    console.print(table)


def supports(method: type[Method], family: type[Family]) -> bool:
    """Whether ``method`` runs on ``family``: on all, unless it names its ``families``."""
    named = getattr(method, "families", None)
    return named is None or family.name in named


def _parameters(method: type[Method]) -> list[dict[str, Any]]:
    from typing import get_type_hints

    from prunus.inference.params import describe

    hints = get_type_hints(method)
    found = []
    for item in dataclasses.fields(method):  # type: ignore[arg-type]
        required = item.default is dataclasses.MISSING and item.default_factory is (
            dataclasses.MISSING
        )
        made = None if item.default_factory is dataclasses.MISSING else item.default_factory()
        found.append(
            {
                "name": item.name,
                "type": describe(hints[item.name]),
                "default": made if item.default is dataclasses.MISSING else item.default,
                "required": required,
                "help": item.metadata.get("help", ""),
            }
        )
    return found


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()
