"""What vLLM cannot serve: told before anything is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prunus.errors import PrunusError
from prunus.method import EditsAttention, Method, acting, tower_part
from prunus.method.base import looks_at_question
from prunus.method.budget import Budget, Meaning

_INSIDE = (
    "vLLM's language model runs many requests at once over one paged cache, whose rows every layer "
    "shares"
)
_INSTEAD = "choose a method that acts before the language model (prunus methods), or transformers "
_INSTEAD += "instead of vLLM (prunus serve transformers, prunus batch)"


def check_servable(methods: Sequence[Method], depth: int, budget: Meaning = "nominal") -> None:
    """Raise PrunusError unless ``methods`` act before the language model, without looking at the
    question, and leave a number of tokens that is known from the size of the image."""
    counted = Budget(methods, depth, budget)
    for method in acting(methods, depth):
        layers = [cut.layer for cut in method.cuts(depth) if cut.layer is not None]
        if layers:
            raise PrunusError(
                f"{method.name} takes tokens away at decoder layer {layers[0]}, inside the "
                f"language model: {_INSIDE}; {_before(method, depth)}{_INSTEAD}"
            )
        if isinstance(method, EditsAttention) and (method.edits(depth) or method.forgets(depth)):
            raise PrunusError(
                f"{method.name} changes attention or caches inside the language model: {_INSIDE}; "
                f"{_INSTEAD}"
            )
        if looks_at_question(method, depth):
            raise PrunusError(
                f"{method.name} looks at the question, and vLLM makes features of an image without "
                f"it, and keeps them for other questions: {_alone(method, depth)}{_INSTEAD}"
            )
        if not method.cuts(depth) and tower_part(method) is None:
            raise PrunusError(f"{method.name} takes no token away: start vLLM without prunus")
        if type(method).choose is not Method.choose:
            raise PrunusError(
                f"{method.name} chooses among all images of a prompt at once, and vLLM makes "
                f"features of each image by itself: {_INSTEAD}"
            )
        own = counted.finds_own_count(method) and not _counted_in_tower(method, counted)
        if own or not method.exact:
            raise PrunusError(
                f"{method.name} finds its own count, and vLLM lays out the prompt before anything "
                "is seen of the image: set keep, if it has one (for each image, not for the mean "
                f"of many), or {_INSTEAD}"
            )


def _before(method: Method, depth: int) -> str:
    """What to say of a method that can be told to act before the language model."""
    fields = {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
    for name, value in (("layer", None), ("ahead", True)):
        if name not in fields:
            continue
        try:
            early = dataclasses.replace(method, **{name: value})  # type: ignore[type-var]
            acts = all(cut.layer is None for cut in early.cuts(depth))
        except PrunusError:  # not with this setting, or it has a layer, but None is none
            continue
        if acts:
            return f"set {name}={str(value).lower()}, or "
    return ""


def _alone(method: Method, depth: int) -> str:
    """What to say of a method that can be told to look at the image alone."""
    if "question" not in {field.name for field in dataclasses.fields(method)}:  # type: ignore[arg-type]
        return ""
    alone = dataclasses.replace(method, question=False)  # type: ignore[type-var]
    return "" if looks_at_question(alone, depth) else "set question=false, or "


def _counted_in_tower(method: Method, budget: Budget) -> bool:
    return tower_part(method) is not None and budget.counts(method, 1, 576) is not None
