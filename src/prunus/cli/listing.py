"""``prunus methods``: what there is, and what follows from how it is set."""

from __future__ import annotations

import dataclasses
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import out, print_json
from prunus.cli.explained import explained

if TYPE_CHECKING:
    from prunus.inference.named import Named
    from prunus.method import Method

#: Signs of a line of the list; more where the terminal is wider.
_WIDTH = 80

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Explain this one: clse, clse@hybrid.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods; or explain one: parameters, presets, paper, families."""
    from prunus.inference.named import Named, full_name, parse_one
    from prunus.method import methods as known_methods

    console = out()
    if name is not None:
        named = parse_one(name)
        chosen = {named.kind.name: _facts(named)}
        title = name if ".py:" in name else full_name(name.strip())
        lines = explained(named.kind.name, chosen[named.kind.name], title)
    else:
        chosen = {one: _facts(Named(one, kind), as_json) for one, kind in known_methods().items()}
        lines = _lines(chosen, max(_WIDTH, console.width))
    if as_json:
        print_json(chosen)
        return
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _facts(named: Named, homes: bool = True) -> dict[str, Any]:
    """What is known of a method; ``homes``: its families as well, whose modules take seconds to
    import, and which the plain list does not show."""
    from prunus.cli.explained import cost, idea
    from prunus.inference.named import presets_of
    from prunus.method.derived import derived
    from prunus.method.registry import required

    method = named.kind
    complete = set(required(method)) <= set(named.params)
    return {
        "summary": method.summary,
        "paper": method.paper,
        "kind": method.kind,
        "parameters": _parameters(method),
        "presets": {preset: dict(params) for preset, params in presets_of(method).items()},
        "families": _homes(named) if homes else [],
        "derived": derived(named.plain()) if complete else None,
        "stages": _stages(named) if complete else [],
        "idea": idea(method),
        "cost": cost(named.plain()) if complete and homes else [],
    }


def _homes(named: Named) -> list[str]:
    from prunus.cli.models import runs
    from prunus.families import families

    return [home for home, family in families().items() if runs(named, family)]


#: Averages of a composition that its stages are shown at.
_AVERAGES = (1 / 3, 2 / 9, 1 / 9)


def _stages(named: Named) -> list[dict[str, Any]]:
    """Of a composition, what each of its methods leaves for the averages of :data:`_AVERAGES`."""
    from prunus.method.base import DEPTH
    from prunus.method.budget import Budget
    from prunus.method.derived import TOKENS, derived

    takes = named.takes("keep")
    made = [named.make(keep=one) if takes else named.plain() for one in _AVERAGES]
    if len(made[0].parts()) == 1:
        return []
    budgets = [(one.parts(), Budget([one], DEPTH)) for one in made]
    found = []
    for at, part in enumerate(made[0].parts()):
        left = [budget.counts(parts[at], 1, TOKENS) for parts, budget in budgets]
        found.append(
            {
                "method": part.name,
                "params": _changed(part),
                "places": derived(part)["places"],
                "left": [None if counts is None else counts[-1] for counts in left],
            }
        )
    return found


def _changed(method: Method) -> dict[str, Any]:
    """Parameters besides ``keep`` that are not at their defaults."""
    fields = [one for one in dataclasses.fields(method) if one.name != "keep"]  # type: ignore[arg-type]
    values = {one.name: getattr(method, one.name) for one in fields if one.init}
    return {one.name: values[one.name] for one in fields if values[one.name] != one.default}


_PLACES = {
    "vision": "in the vision tower",
    "before": "between the vision tower and the language model",
    "decoder": "inside the language model, at decoder layers",
    "attention": "inside the attention of decoder layers",
    "": "where its parameters say",
}


def _lines(described: dict[str, dict[str, Any]], width: int) -> list[str]:
    """Each method on a line of at most ``width`` signs (of a stranger's, maybe on more of them),
    below the place where it first acts."""
    widest = max(map(len, described))
    lines: list[str] = []
    for place, title in _PLACES.items():
        own = {name: facts for name, facts in described.items() if _place(facts) == place}
        if not own:
            continue
        lines += ["", f"{title}:"] if lines else [f"{title}:"]
        for name, facts in own.items():
            start = f"  {name:<{widest}} {_sign(facts)} "
            rest = " " * len(start)
            lines += wrap(facts["summary"], width, initial_indent=start, subsequent_indent=rest)
    return [
        *lines,
        "",
        "q: reads the question. *: needs something trained, or measured, for the model.",
        "One explained: prunus methods NAME. In use: prunus run photo.jpg --method NAME",
    ]


def _place(facts: dict[str, Any]) -> str:
    """The first place of the default setting, in a word."""
    places = (facts["derived"] or {"places": []})["places"]
    return str(places[0].split()[0]) if places else ""


def _sign(facts: dict[str, Any]) -> str:
    derived = facts["derived"] or {"question": False, "needs": ""}
    return ("q" if derived["question"] else " ") + ("*" if derived["needs"] else " ")


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
