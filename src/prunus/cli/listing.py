"""``prunus methods``: what there is, and what follows from how it is set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import out, print_json

if TYPE_CHECKING:
    from prunus.inference.named import Named
    from prunus.method import Method

#: Signs of a line; the list of all takes more where the terminal is wider.
_WIDTH = 80

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Explain this one: clse, clse@hybrid.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods; or explain one: parameters, presets, paper, families."""
    from prunus.inference.named import Named, parse_one
    from prunus.method import methods as known_methods

    console = out()
    if name is not None:
        named = parse_one(name)
        chosen = {named.kind.name: _facts(named)}
        lines = _explained(named.kind.name, chosen[named.kind.name], title=name)
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
        "derived": derived(named.make()) if complete else None,
        "stages": _stages(named) if complete else [],
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

    made = [named.make(keep=one) if named.takes("keep") else named.make() for one in _AVERAGES]
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


def _lines(described: dict[str, dict[str, Any]], width: int) -> list[str]:
    """Each method, in lines of at most ``width`` signs; those that go on are indented."""
    widest = max(map(len, described))
    lines = [f"{'method':<{widest}}  keep   where  sees  what it does"]
    for name, facts in described.items():
        defaults = {param["name"]: param["default"] for param in facts["parameters"]}
        keep = _show(defaults["keep"]) if defaults.get("keep") is not None else "-"
        where, sees = _signs(facts["derived"])
        start = f"{name:<{widest}}  {keep:<6} {where:<6} {sees:<5} "
        rest = " " * len(start)
        lines += wrap(facts["summary"], width, initial_indent=start, subsequent_indent=rest)
    return [
        *lines,
        "",
        "keep: default budget; -: its own count, or none. where: in the vision tower,",
        "before the language model, or at decoder layers. sees: q, the question; t, the",
        "vision tower; c, its CLS token. m: it merges; n: needs training, or measuring.",
        "More: prunus methods NAME",
    ]


def _signs(derived: dict[str, Any] | None) -> tuple[str, str]:
    """The first place, and what it sees and does, of the default setting, in a word each."""
    if derived is None:
        return "-", "-"
    names = {"vision": "tower", "before": "before", "decoder": "layers", "attention": "layers"}
    where = names[derived["places"][0].split()[0]] if derived["places"] else "-"
    signs = (("question", "q"), ("tower", "t"), ("cls", "c"), ("merges", "m"), ("needs", "n"))
    return where, "".join(sign for fact, sign in signs if derived[fact]) or "-"


_COUNTS = {
    "asked": "as asked for",
    "schedule": "by its schedule",
    "own": "it finds its own count",
    "all": "it takes none away",
}


_NEEDS = {
    "": "nothing",
    "selector": "a selector that was trained for the model (`prunus train`)",
    "calibration": "a calibration for the model (`prunus calibrate`), or published values serve",
}


def _derived_lines(derived: dict[str, Any] | None) -> list[str]:
    """What follows from the method as it is set (for a decoder of 32 layers)."""
    if derived is None:
        return []
    word = {True: "yes", False: "no"}
    of = " (of 32)" if any("layers" in place for place in derived["places"]) else ""
    return [
        f"  sees the question: {word[derived['question']]}",
        f"  tokens left: {_COUNTS[derived['count']]}",
        f"  merges: {word[derived['merges']]}; looks into the tower: {word[derived['tower']]}, "
        f"at its CLS token: {word[derived['cls']]}",
        f"  needs: {_NEEDS[derived['needs']]}",
        f"  acts at: {'; '.join(derived['places']) or 'nothing'}{of}",
    ]


def _stage_lines(stages: list[dict[str, Any]]) -> list[str]:
    """One stage below the other, with what it leaves of 576 tokens."""
    if not stages:
        return []
    lines = ["  stages, and tokens left of 576 for an average of 192, 128, 64 over 32 layers:"]
    for stage in stages:
        words = ", ".join(f"{one}={_show(value)}" for one, value in stage["params"].items())
        left = ", ".join("?" if count is None else str(count) for count in stage["left"])
        text = f"{stage['method']}{f' ({words})' if words else ''}, {'; '.join(stage['places'])}"
        lines += wrap(f"{text}: {left}", _WIDTH, initial_indent="    ", subsequent_indent="      ")
    return lines


def _explained(name: str, facts: dict[str, Any], title: str) -> list[str]:
    """All of one method, which was asked for as ``title``."""
    paper = [f"  {facts['paper']}"] if facts["paper"] else []
    head = wrap(f"{title}: {facts['summary']}", _WIDTH, subsequent_indent="  ")
    lines = [*head, *paper, f"  kind: {facts['kind']}"]
    lines += _derived_lines(facts["derived"])
    lines += _stage_lines(facts["stages"])
    homes = f"  runs on: {', '.join(facts['families'])}"
    lines += wrap(homes, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    lines += ["", "parameters (default):"]
    for param in facts["parameters"]:
        default = "required" if param["required"] else _show(param["default"])
        lines += _item(f"{param['name']}={default}  {param['help']}", hyphens=True)
    if facts["presets"]:
        lines += ["", f"presets ({name}@NAME):"]
    for preset, params in facts["presets"].items():
        words = ", ".join(f"{one}={_show(value)}" for one, value in params.items())
        lines += _item(f"{name}@{preset}: {words}", hyphens=False)
    if facts["stages"] and facts["presets"]:
        lines.append(f"  (what the stages of one leave: prunus methods {name}@NAME)")
    return lines


def _item(text: str, hyphens: bool) -> list[str]:
    return wrap(
        text,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="      ",
        break_on_hyphens=hyphens,
    )


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
    if isinstance(value, Mapping):  # a stage of a composition
        return str(value.get("method", value))
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()
