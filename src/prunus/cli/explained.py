"""What ``prunus methods NAME`` says of one method."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from prunus.errors import PrunusError

if TYPE_CHECKING:
    from prunus.method import Method

_WIDTH = 80
#: Signs of a class's text that are enough to tell the idea.
_ENOUGH = 160


def idea(method: type[Method]) -> str:
    """The first paragraphs of what the class says of itself, as plain text."""
    paragraphs: list[str] = []
    for paragraph in (inspect.getdoc(method) or "").split("\n\n"):
        if sum(map(len, paragraphs)) >= _ENOUGH:
            break
        text = re.sub(r":\w+:`[~!]?(?:[\w.]*\.)?([^`]*)`", r"\1", paragraph)
        paragraphs.append(re.sub(r"`+([^`]*)`+", r"\1", text))
    return "\n\n".join(paragraphs)


def cost(method: Method) -> list[str]:
    """What a run costs with the method as it is set, and the least that it can be asked for, on a
    language model of LLaVA-1.5-7B's sizes and an image of 576 tokens."""
    from prunus.cost.published import dense_flops, visual_flops
    from prunus.families.shapes import DecoderShape
    from prunus.method.base import DEPTH
    from prunus.method.budget import Budget
    from prunus.method.derived import TOKENS, derived

    if not derived(method)["places"] or derived(method)["count"] == "all":
        return ["all tokens stay: it saves what it cuts out of attention, and nothing else"]
    budget = Budget([method], DEPTH)
    lines = []
    try:
        layers = budget.per_layer(TOKENS)
    except PrunusError:  # an image of one size is not what it is for
        layers = None
    if layers is None:
        lines.append("it finds its own count: `prunus run` reports what each prompt cost")
    else:
        shape = DecoderShape(DEPTH, 4096, 32, 32, 128, 11008)
        share = visual_flops(shape, layers) / dense_flops(shape, TOKENS)
        lines.append(
            f"as set: {sum(layers) / DEPTH:.1f} of {TOKENS} visual tokens per layer on average, "
            f"{layers[-1]:g} at the last; {share:.0%} of the work on them"
        )
    least = budget.least(TOKENS) if getattr(method, "keep", None) is not None else None
    if least is not None and least > 1.5:
        lines.append(
            f"the least that it can be asked for: {least:.1f} per layer on average, because layers "
            "before its cuts see more"
        )
    return lines


def limits(facts: Mapping[str, Any]) -> list[str]:
    """What to expect of it where others fit better: what follows from where it acts, and from what
    it sees."""
    derived = facts["derived"]
    if derived is None or derived["count"] == "all":
        return []
    found = []
    if derived["question"]:
        found.append("chosen for this question: a later turn about something else has these tokens")
    else:
        found.append("it does not read the question: what is asked about may go if it is small")
    if derived["cls"]:
        found.append("where the vision tower has no CLS token, attention received stands in for it")
    if not derived["tower"] and all("layer" in place for place in derived["places"]):
        found.append("it saves nothing in the vision tower, nor in the layers before its first cut")
    if not any("layer" in place for place in derived["places"]):
        found.append("it saves nothing in later layers: what is left is there to the end")
    if derived["needs"] == "selector":
        found.append("refused where no selector was trained for the model")
    if derived["needs"] == "calibration":
        found.append("on models that it was not measured on, values published for another serve")
    return found


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
    from prunus.method.base import DEPTH

    of = f" of {DEPTH}" if any("layer" in place for place in derived["places"]) else ""
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


def explained(name: str, facts: dict[str, Any], title: str) -> list[str]:
    """All of one method, which was asked for as ``title``, in lines of 80 signs."""
    from prunus.families import families
    from prunus.families.proved import runs_on

    lines = wrap(f"{title}: {facts['summary']}", _WIDTH, subsequent_indent="  ")
    lines += [f"  {facts['paper']}"] if facts["paper"] else []
    lines += _text(facts["idea"])
    lines += ["", "how it acts:", f"  kind: {facts['kind']}", *_derived_lines(facts["derived"])]
    lines += _stage_lines(facts["stages"])
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
    if facts["cost"]:
        lines += ["", "cost (LLaVA-1.5-7B, an image of 576 tokens):"]
        for line in facts["cost"]:
            lines += _item(line, hyphens=False)
    lines += ["", "when to take another:"]
    for line in limits(facts):
        lines += _item(line, hyphens=False)
    gone = [home for home in families() if home not in facts["families"]]
    runs = f"it runs on {len(facts['families'])} of {len(families())} families of models"
    if all(runs_on(home, name) is None for home in families()):
        runs = f"not tried here; by what it declares {runs} (prunus check tells)"
    return lines + _item(runs + (f", not on {', '.join(gone)}" if gone else ""), hyphens=False)


def _text(text: str) -> list[str]:
    """Paragraphs and lists, as wide as the screen."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        lines.append("")
        for point in re.split(r"\n(?=\* )", paragraph):
            rest = "    " if point.startswith("* ") else "  "
            lines += wrap(
                " ".join(point.split()), _WIDTH, initial_indent="  ", subsequent_indent=rest
            )
    return lines


def _item(text: str, hyphens: bool) -> list[str]:
    return wrap(
        text,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="      ",
        break_on_hyphens=hyphens,
    )


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_show, value)) or "none"
    if isinstance(value, Mapping):  # a stage of a composition
        return str(value.get("method", value))
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()
