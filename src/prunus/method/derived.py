"""What follows from a method's own words: no method says these things of itself a second time."""

from __future__ import annotations

from typing import Any

from prunus.method.base import DEPTH, Method, acting, looks_at_question, signals_of
from prunus.method.capabilities import EditsAttention, Trained, tower_part

TOKENS = 576  # of LLaVA-1.5-7B, as DEPTH is: of what size does not matter


def derived(method: Method, depth: int = DEPTH) -> dict[str, Any]:
    """Facts of ``method`` as it is set, on a decoder of ``depth`` layers, as plain values.

    * ``question``: whether its choice depends on the question.
    * ``count``: how many tokens are left: "asked" (``keep``), "schedule" (known without), "own"
      (it finds its own), or "all" (it takes none away).
    * ``merges``: whether tokens may become part of others.
    * ``tower``: whether it looks into the vision tower, or acts there.
    * ``cls``: whether it goes by the tower's CLS token where there is one (attention received,
      where there is none).
    * ``needs``: what it does nothing without ("selector": trained for the model), or does not do
      as published ("calibration": measured on the model); "" for neither.
    * ``places``: where it acts: "vision tower", "before the language model", "decoder layer 2",
      "attention of decoder layers 2, 9".
    """
    parts = acting([method], depth)
    inside = [part for one in parts if (part := tower_part(one))]
    cuts = [cut for one in parts for cut in one.cuts(depth)]
    places = ["vision tower"] if inside else []
    if any(cut.layer is None for cut in cuts):
        places.append("before the language model")
    layers = [cut.layer for cut in cuts if cut.layer is not None]
    if layers:
        places.append(f"decoder {_line(layers)}")
    seen = [signal for one in parts for signal in signals_of(one, depth)]
    seen += [signal for part in inside for signal in part.in_tower or ()]
    edits = [one.edits(depth) for one in parts if isinstance(one, EditsAttention)]
    edited = sorted({layer for own in edits for layer in own})
    if edited:
        places.append(f"attention of decoder {_line(edited)}")
    return {
        "question": any(looks_at_question(one, depth) for one in parts),
        "count": _count(method, depth) if inside or cuts else "all",
        "merges": any(one.kind == "merge" for one in parts),
        "tower": bool(inside) or any(one.tower for one in seen),
        "cls": any(one.cls for one in seen),
        "needs": next((word for one in parts if (word := _needs(one))), ""),
        "places": places,
    }


def _count(method: Method, depth: int) -> str:
    keep = getattr(method, "keep", None)
    asked = None if keep is None else TOKENS / 2
    if method.counts(asked, TOKENS, depth) is None:
        return "own"
    return "schedule" if keep is None else "asked"


def _needs(method: Method) -> str:
    if isinstance(method, Trained):
        return "selector"
    return "calibration" if method.measured else ""


def _line(layers: list[int]) -> str:
    """``layer 1``, ``layers 1, 4, 9``, or ``layers 7 to 30`` of more than three in a row."""
    if len(layers) > 3 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]} to {layers[-1]}"
    return f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"
