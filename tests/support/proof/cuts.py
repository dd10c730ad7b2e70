"""Cuts at prefill: against the run on all tokens, with the dropped ones hidden in its masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prunus import Fixed, Method, Random, Uniform
from tests.support.decoders import Decoder
from tests.support.oracles.own_masks import masked_logits
from tests.support.proof.bench import (
    ONE,
    PROMPTS,
    RAGGED,
    alive,
    gap,
    model_of,
    placed,
    prompt,
    pruned,
    visible,
)

SOME = [0, 3, 4, 9, 14]
CUTS: dict[str, tuple[tuple[int, ...], Sequence[Method]]] = {
    "one, layer 1": (ONE, [Uniform(keep=5, layer=1)]),
    "one, layer 3": (ONE, [Random(keep=5, layer=3)]),
    "one, before": (ONE, [Random(keep=5, layer=None)]),
    "ragged, layer 0": (RAGGED, [Uniform(keep=6, layer=0)]),
    "ragged, layer 1": (RAGGED, [Random(keep=4, layer=1)]),
    "ragged, before": (RAGGED, [Random(keep=4, layer=None)]),
    "ragged, trimmed": (RAGGED, [Fixed(SOME, layer=2, trim_cache=True)]),
    "ragged, two cuts": (RAGGED, [Random(keep=9, layer=1), Random(keep=4, layer=3)]),
}


def cuts(decoder: Decoder, backend: str) -> dict[str, float]:
    """Prefill under each of :data:`CUTS`."""
    return {
        name: cut(decoder, backend, methods, prompt(*images))
        for name, (images, methods) in CUTS.items()
    }


def cut(decoder: Decoder, backend: str, methods: Sequence[Method], call: dict[str, Any]) -> float:
    """Logits of ``call`` pruned by ``methods``, where tokens are left."""
    found, trace = pruned(decoder, backend, methods, call)
    expected = masked_logits(model_of(decoder), _added(call), visible(trace, call))
    return gap(found, expected, alive(trace, call))


def given_masks(decoder: Decoder, backend: str) -> dict[str, float]:
    """Cuts of prompts whose masks say more than where padding is."""
    methods = [Random(keep=9, layer=1), Random(keep=4, layer=3)]
    square, holes = _square(backend), _holes()
    return {
        "4-D": cut(decoder, backend, methods, square),
        "4-D, before": cut(decoder, backend, [Random(keep=5, layer=None)], square),
        "image tokens masked out": cut(decoder, backend, methods, holes),
        "image tokens masked out, before": cut(
            decoder, backend, [Uniform(keep=6, layer=None)], holes
        ),
    }


def _square(backend: str) -> dict[str, Tensor]:
    """One sample whose caller hides its first five tokens from its last six: a 4-D mask, as the
    backend takes it."""
    call = prompt(*ONE)
    size = call["input_ids"].shape[1]
    mask = torch.ones(1, 1, size, size).tril().bool()
    mask[..., -6:, 1:6] = False
    call["attention_mask"] = mask
    return call if backend == "sdpa" else _added(call)


def _holes() -> dict[str, Tensor]:
    """A ragged batch in which some image tokens are masked out, as padding is."""
    inputs = PROMPTS.rows(*RAGGED)
    inputs["attention_mask"] = inputs["attention_mask"].clone()
    for row, images in enumerate(PROMPTS.spots(inputs["input_ids"])):
        inputs["attention_mask"][row, images[-1][2:7]] = 0
    return placed(inputs)


def _added(call: dict[str, Any]) -> dict[str, Any]:
    """``call`` without a word on caches, its bool 4-D mask as eager attention takes it."""
    call = {name: value for name, value in call.items() if name != "use_cache"}
    mask = call.get("attention_mask")
    if mask is not None and mask.ndim == 4 and mask.dtype == torch.bool:
        call["attention_mask"] = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo().min)
    return call
