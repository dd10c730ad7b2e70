"""What is timed: methods, and each of them again as an oracle that is told what to keep."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

import prunus
from prunus.families import family_of
from prunus.method import Method
from prunus.method.budget import Meaning
from prunus.pruners.fixed import Fixed
from prunus.run import Run
from prunus.selector.config import SelectorConfig
from prunus.selector.selector import Selector
from prunus.selector.store import Card


def untrained(model: nn.Module, method: Method, scale: float = 1.0) -> Method:
    """``method`` with a selector of the paper's size and random weights, if it needs one: what it
    picks means nothing, what it costs is right. Beside a model at ``scale`` of its width the
    selector is as narrow; its two layers and two stay, so that its share is too large there."""
    give = getattr(method, "with_selector", None)
    if give is None:
        return method
    family = family_of(model)
    weight = next(model.parameters())
    torch.manual_seed(0)
    kind: Literal["stepwise", "one-shot"] = "one-shot" if method.name == "one-shot" else "stepwise"
    heads = max(1, round(16 * scale))
    config = SelectorConfig(
        family.feature_width, family.text_width, width=64 * heads, heads=heads, kind=kind
    )
    selector = Selector(config).eval().to(weight.device)
    given: Method = give(selector, Card("timing", family.fingerprint().tolist(), None))
    return given


def oracle(
    model: Any, methods: list[Method], inputs: dict[str, Any], budget: Meaning = "nominal"
) -> list[Fixed]:
    """The methods that keep, of this very prompt, what ``methods`` keep, without choosing."""
    with prunus.prune(model, methods, budget=budget) as run:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
        trace = [replace(entry, scores=None) for entry in run.trace]
    return Fixed.replay(trace)


def pruned(
    model: nn.Module, methods: list[Method], budget: Meaning = "nominal"
) -> AbstractContextManager[Run | None]:
    """The block in which ``methods`` prune the model; without any, one in which nothing does."""
    return prunus.prune(model, methods, budget=budget) if methods else nullcontext()


def answer(model: Any, inputs: dict[str, Any], tokens: int) -> object:
    """Generate ``tokens`` tokens, greedily."""
    return model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
