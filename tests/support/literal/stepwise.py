"""A selector's reading, read literally."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from prunus import OneShot
from prunus.families import family_of
from prunus.selector.learned import Learned
from tests.support.models import Case
from tests.support.objective import VISUAL, features_of
from tests.support.oracles.selector import encode, linear, norm, walk
from tests.support.random_selectors import selector_for


def fitted(case: Case, method: Any, **config: Any) -> Any:
    """``method`` with a random selector for the case's model."""
    kind = method.kind_of_selector
    return method.with_selector(*selector_for(family_of(case.model), kind=kind, **config))


@torch.no_grad()
def literal_orders(
    case: Case,
    inputs: dict[str, Tensor],
    method: Learned,
    bias: float | None = None,
    left: list[list[Tensor]] | None = None,
) -> list[list[list[int]]]:
    """``[row][image]``: tokens in the order in which the literal selector picks them. The question
    is all text behind the last visual token, if the method reads it. ``left``: features ``[n, D]``
    of those that another method left of each image, which are then the ones that are picked from
    and counted."""
    assert method.loaded is not None
    selector = copy.deepcopy(method.loaded[0]).double()
    extra = getattr(case.prompts, "extra", 0)
    found: list[list[list[int]]] = []
    counts = [len(images) for images in case.prompts.spots(inputs["input_ids"])]
    for row, count in enumerate(counts):
        found.append([])
        if not count:
            continue
        alone = case.prompts.one(inputs, row, trim=True)
        ids = alone["input_ids"][0]
        last = max(place for place, token in enumerate(ids.tolist()) if token in VISUAL)
        asked = ids[last + 1 :] if method.question else ids[:0]
        words = case.model.get_input_embeddings()(asked).double()
        whole = [own[extra:] for own in features_of(case, alone)[0]] if left is None else left[row]
        for own in whole:
            features = own.double()
            size, keep = len(features), None
            if isinstance(method, OneShot) or method.mode == "fixed":  # type: ignore[attr-defined]
                wanted = method.keep  # type: ignore[attr-defined]
                keep = int(wanted * size) if isinstance(wanted, float) else wanted
            encoded = encode(selector.encoder, features, words)
            if selector.pointer is None:
                rows = linear(norm(encoded, selector.scorer[0]), selector.scorer[1])
                ranked = sorted(range(size), key=lambda n, rows=rows: -float(rows[n]))
                found[-1].append(ranked[:keep])
                continue
            most = max(1, int(size * selector.config.max_share))
            own_bias = getattr(method, "bias", 0.0) if bias is None else bias
            found[-1].append(walk(selector.pointer, encoded, most, keep, own_bias).order)
    return found
