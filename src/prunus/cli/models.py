"""``prunus models``: which models there are, and which methods run on them."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import out, print_json
from prunus.errors import unknown

if TYPE_CHECKING:
    from prunus.families import Family
    from prunus.inference.named import Named

_WIDTH = 80
_UNTRIED = "not tried: prunus check tells"


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[FAMILY]", help="Say of this family what each method does: llava."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """List built-in models and supported families; or say which methods run on one, and why not."""
    from prunus.builtin import BUILTIN
    from prunus.families import families
    from prunus.method.registry import spelled

    homes = families()
    if name is not None:
        name = spelled(name, homes)
        if name not in homes:
            raise unknown("family", name, sorted(homes), listed="`prunus models` lists them all")
    described = {
        home: _facts(family) for home, family in sorted(homes.items()) if name in (None, home)
    }
    if as_json:
        print_json({"builtin": dict(BUILTIN), "families": described})
        return
    lines = _explained(*next(iter(described.items()))) if name else _listed(BUILTIN, described)
    for line in lines:
        out().print(line, markup=False, soft_wrap=True)


def runs(named: Named, family: type[Family]) -> bool:
    """Whether a method runs on ``family``: as was proved, or, of a method or a family that nobody
    tried, as far as its declarations tell (it names its ``families``, or needs blocks of a vision
    tower that the family has no adapter for)."""
    from prunus.families import Family
    from prunus.families.proved import runs_on

    known = runs_on(family.name, named.kind.name)
    if known is not None:
        return known
    named_families = getattr(named.kind, "families", None)
    if named_families is not None and family.name not in named_families:
        return False
    merges, looks = _needs_blocks(named)
    blind = family.tower_adapter is Family.tower_adapter
    return not (family.no_merging and merges) and not (blind and looks)


def _needs_blocks(named: Named) -> tuple[bool, bool]:
    """Whether a method merges in blocks of the vision tower, and whether it looks at them; false
    where that depends on a parameter that has no default."""
    from prunus.method import acting, signals_of, tower_part
    from prunus.method.base import DEPTH
    from prunus.method.registry import required

    if not set(required(named.kind)) <= set(named.params):
        return False, False
    parts = acting([named.plain()])
    looks = any(signal.tower == "block" for part in parts for signal in signals_of(part, DEPTH))
    return any(tower_part(part) is not None for part in parts), looks


def _facts(family: type[Family]) -> dict[str, Any]:
    from prunus.families.proved import proved
    from prunus.method import methods

    table = proved().get(family.name, {})
    return {
        "model_types": list(family.model_types),
        "summary": family.summary,
        "inputs": list(table) or None,
        "methods": {
            method: {shown: own.get(method, _UNTRIED) for shown, own in table.items()}
            for method in methods()
        },
    }


def _refused(facts: dict[str, Any]) -> list[str]:
    """Methods that run on no kind of input."""
    from prunus.families.proved import REFUSED

    return [
        method
        for method, said in facts["methods"].items()
        if said and all(word.startswith(REFUSED) for word in said.values())
    ]


def _listed(builtin: Any, described: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["built-in models (work offline):"]
    for name, summary in builtin.items():
        lines += wrap(f"{name:<12} {summary}", _WIDTH, subsequent_indent=" " * 13)
    lines += ["", "families (a local folder, or a Hugging Face id):"]
    for name, facts in described.items():
        shows = " and ".join(f"{shown}s" for shown in facts["inputs"] or ()) or "not tried"
        lines += wrap(f"{name:<16} {facts['summary']}", _WIDTH, subsequent_indent=" " * 17)
        indent = " " * 17
        lines.append(f"{indent}{shows}; model_type {', '.join(facts['model_types'])}")
        if gone := _refused(facts):
            lines += wrap(
                f"not: {', '.join(gone)}", _WIDTH, initial_indent=indent, subsequent_indent=indent
            )
    return [
        *lines,
        "",
        'What is not named after "not:" runs. Why, and method by method: prunus models',
        "FAMILY. Whether it is right on a model of yours: prunus check --model ...",
    ]


def _explained(name: str, facts: dict[str, Any]) -> list[str]:
    lines = wrap(f"{name}: {facts['summary']}", _WIDTH, subsequent_indent="  ")
    lines.append(f"  model_type: {', '.join(facts['model_types'])}")
    width = max(map(len, facts["methods"]), default=0)
    for shown in facts["inputs"] or ():
        lines += ["", f"{shown}s:"]
        for method, said in facts["methods"].items():
            lines += wrap(
                f"{method:<{width}} {said[shown] or 'yes'}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent=" " * (width + 3),
            )
    if facts["inputs"] is None:
        lines += ["", f"  {_UNTRIED}"]
    return lines
