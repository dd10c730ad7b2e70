"""Writes docs/methods.md: every method in a line, from what is derived, proved and measured.

    python -m tests.support.catalogue

Columns follow from the methods themselves (:func:`prunus.method.derived.derived`, which
tests/methods/test_derived_by_behaviour.py proves), from the checks of every family (proved.json)
and from docs/data/choosing.json, which benchmarks/choosing.py measures.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import wrap
from typing import Any

from prunus.families.proved import REFUSED, proved
from prunus.inference.named import Named
from prunus.method import Method
from prunus.method.derived import derived
from prunus.method.registry import methods, required

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods.md"
CHOOSING = ROOT / "docs" / "data" / "choosing.json"
_COUNTS = {"asked": "as asked", "schedule": "by schedule", "own": "its own", "all": "all stay"}
_SIGNS = {True: "yes", False: ""}


def runs(name: str, shown: str) -> str:
    """On how many of the families that take images (videos) it runs."""
    said = [own[shown].get(name) for own in proved().values() if shown in own]
    tried = [word for word in said if word is not None]
    return f"{sum(not word.startswith(REFUSED) for word in tried)} of {len(tried)}"


def cost(name: str, tokens: str, measured: dict[str, Any]) -> str:
    """What choosing adds to a pruned prefill, in percent of the dense one."""
    found = measured.get(tokens, {}).get("rows", {}).get(name, {}).get("share")
    return "" if found is None else f"{100 * found[1]:.1f} %"


def page() -> str:
    """The whole page."""
    known = {n: c for n, c in methods().items() if c.__module__.startswith("prunus.pruners.")}
    measured = json.loads(CHOOSING.read_text("utf-8")) if CHOOSING.exists() else {}
    pairs = [word for own in proved().values() for said in own.values() for word in said.values()]
    refused = sum(word.startswith(REFUSED) for word in pairs)
    presets = sum(len(cls.presets) for cls in known.values())
    head = _HEAD.format(len(known), presets, len(proved()), len(pairs), refused)
    lines = ["# Methods", "", *_paragraphs(head), _COLUMNS, "|" + "---|" * 11]
    lines += [_row(name, cls, measured) for name, cls in known.items()]
    lines += ["", *_paragraphs(_LEGEND)]
    if measured:
        lines += _paragraphs(_CHOOSING.format(**measured["576"]))
    for name, cls in known.items():
        origin = f" From: {cls.paper}." if cls.paper else ""
        lines += [f"## {name}", ""]
        lines += _paragraphs(f"{cls.summary[0].upper()}{cls.summary[1:]}.{origin}")
        if cls.presets:
            names = ", ".join(f"`{name}@{preset}`" for preset in cls.presets)
            lines += _paragraphs(f"Named settings: {names}.")
    return "\n".join(lines)


def _row(name: str, cls: type[Method], measured: dict[str, Any]) -> str:
    if required(cls):
        facts: dict[str, Any] = {"places": ["as told"], "question": False, "count": "own"}
        facts |= {"merges": False, "cls": False, "needs": "indices"}
    else:
        facts = derived(Named(name, cls).plain())
    cells = [
        f"[`{name}`](#{name})",
        "; ".join(facts["places"]),
        _SIGNS[facts["question"]],
        _COUNTS[facts["count"]],
        _SIGNS[facts["merges"]],
        _SIGNS[facts["cls"]],
        runs(name, "image"),
        runs(name, "video"),
        facts["needs"],
        cost(name, "576", measured),
        cost(name, "2880", measured),
    ]
    return f"| {' | '.join(cells)} |"


def _paragraphs(text: str) -> list[str]:
    """Lines of a page's usual width, with an empty one behind each paragraph."""
    lines = []
    for part in text.strip().split("\n\n"):
        flat = " ".join(part.split())
        lines += [*wrap(flat, 100, break_on_hyphens=False, break_long_words=False), ""]
    return lines


_COLUMNS = (
    "| method | acts at | question | count | merges | CLS | images | videos | needs "
    "| choosing, 576 | 2,880 |"
)
_HEAD = """
Written by `python -m tests.support.catalogue`. `prunus methods` lists the same in a terminal, and
`prunus methods NAME` explains one: parameters, presets, paper.

{} methods, {} named settings; with {} families of models {} pairs on images and videos, of which {}
are refused with their reason ([models](models.md)). Any of them stand one behind the other, in the
order of the data: the vision tower, before the language model, decoder layer by decoder layer.
"""
_LEGEND = """
**acts at**: of a decoder of 32 layers, with default settings. **question**: whether the same
picture with another question may give other tokens. **count**: as asked for (`keep`), by a schedule
of its own, found by itself, or nothing goes. **merges**: what goes may become part of what stays.
**CLS**: goes by the tower's CLS token where there is one, else by the attention that tokens
receive. **images**, **videos**: families on which it runs, of those that take such input.
**needs**: a selector trained for the model, or a calibration (without one, published values serve).
Each of these columns is proved by behaviour (`tests/methods/test_derived_by_behaviour.py`,
`tests/methods/test_derived.py`, `tests/families/test_proved.py`).
"""
_CHOOSING = """
**choosing**: the time of a prefill that chooses, less that of one that is *told* the same tokens (a
replay), in percent of the dense prefill; medians of rounds in which all are timed in turn. Models
of the form of LLaVA-1.5-7B and LLaVA-NeXT-7B at {scale:g} of their width and depth, {device},
{threads} threads, batch 1, {keep:g} of the tokens kept (a third or two thirds by what cannot keep
so few in 4 layers or 3 blocks). A choice grows with the width, a prefill with its square times the
depth: on the full models the shares are smaller ([on a GPU](gpu.md)); most of all those of
`stepwise` and `one-shot`, whose selectors are as narrow as the model here, but have all their
layers, and pick for a decoder of an eighth of the real depth. What stands within 2 % of zero is
within the noise (`random`, `uniform`). Raw
numbers, with quartiles: [choosing.json](data/choosing.json) (`{command}`).
"""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
