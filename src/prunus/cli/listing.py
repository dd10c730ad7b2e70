"""``prunus methods`` and ``prunus models``: what there is, and what goes together."""

from __future__ import annotations

import dataclasses
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import out, print_json

if TYPE_CHECKING:
    from prunus.families import Family
    from prunus.method import Method

#: Signs of a line.
_WIDTH = 80

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Explain this one: clse, clse@hybrid.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods, a line each; or explain one: parameters, presets, paper, families."""
    from prunus.inference.named import parse_one
    from prunus.method import methods as known_methods

    chosen = known_methods()
    if name is not None:
        kind = parse_one(name).kind
        chosen = {kind.name: kind}
    described = {one: _facts(method) for one, method in chosen.items()}
    if as_json:
        print_json(described)
        return
    show = _lines if name is None else _explained
    for line in show(described):
        out().print(line, markup=False, soft_wrap=True)


def _facts(method: type[Method]) -> dict[str, Any]:
    from prunus.families import families
    from prunus.inference.named import presets_of

    homes = families()
    return {
        "summary": method.summary,
        "paper": method.paper,
        "kind": method.kind,
        "parameters": _parameters(method),
        "presets": {preset: dict(params) for preset, params in presets_of(method).items()},
        "families": [home for home, family in homes.items() if supports(method, family)],
    }


def _lines(described: dict[str, dict[str, Any]]) -> list[str]:
    """A line of at most 80 signs for each method."""
    widest = max(map(len, described))
    lines = [f"{'method':<{widest}}  keep   what it does"]
    for name, facts in described.items():
        defaults = {param["name"]: param["default"] for param in facts["parameters"]}
        keep = _show(defaults["keep"]) if defaults.get("keep") is not None else "-"
        start = f"{name:<{widest}}  {keep:<6} "
        lines.append(start + shorten(facts["summary"], _WIDTH - len(start), placeholder=" ..."))
    return [
        *lines,
        "",
        "keep: default budget; -: its own count, or none. More: prunus methods NAME",
    ]


def _explained(described: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, facts in described.items():
        paper = [f"  {facts['paper']}"] if facts["paper"] else []
        head = wrap(f"{name}: {facts['summary']}", _WIDTH, subsequent_indent="  ")
        lines += [*head, *paper, f"  kind: {facts['kind']}"]
        lines += [f"  runs on: {', '.join(facts['families'])}", "", "parameters (default):"]
        for param in facts["parameters"]:
            default = "required" if param["required"] else _show(param["default"])
            lines += wrap(
                f"{param['name']}={default}  {param['help']}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="      ",
            )
        if facts["presets"]:
            lines += ["", f"presets ({name}@NAME):"]
        for preset, params in facts["presets"].items():
            words = ", ".join(f"{one}={_show(value)}" for one, value in params.items())
            lines.append(f"  {name}@{preset}: {words}")
    return lines


def models(as_json: Json = False) -> None:
    """List built-in models, supported families and which method runs on which."""
    from prunus.builtin import BUILTIN
    from prunus.families import families
    from prunus.method import methods as known_methods

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
    """Whether ``method`` runs on ``family``: on all, unless it names its ``families``, or merges in
    the vision tower and the family's tower cannot be merged in."""
    named = getattr(method, "families", None)
    if method.kind == "merge" and family.no_merging:
        return False
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
    if isinstance(value, tuple):
        return ",".join(map(_show, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()
