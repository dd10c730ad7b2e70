"""Edited attention at prefill: against the model's own eager attention, edited by hand."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from prunus import Knockout, Method, Random, TraceEntry
from tests.support.decoders import Decoder
from tests.support.oracles.own_attention import edited
from tests.support.oracles.own_masks import masked_logits
from tests.support.proof.bench import (
    ONE,
    PROMPTS,
    RAGGED,
    alive,
    gap,
    model_of,
    prompt,
    pruned,
    valid_of,
    visible,
)

EDITS: dict[str, tuple[tuple[int, ...], Sequence[Method]]] = {
    "cross": (RAGGED, [Knockout(layers=(0, 2))]),
    "visual": (RAGGED, [Knockout(layers=(1, 2), mask="visual")]),
    "both": (ONE, [Knockout(layers=(0, 1, 2, 3), mask="both")]),
    "collapse": (ONE, [Knockout(layers=(0, 1), collapse=True)]),
    "collapse on the last": (
        RAGGED,
        [Knockout(layers=(1, 2), mask="both", collapse=True, sink=-1)],
    ),
    "cross, renormalised": (ONE, [Knockout(layers=(0, 1), renormalise=True)]),
    "visual, renormalised": (RAGGED, [Knockout(layers=(2, 3), mask="visual", renormalise=True)]),
    "both, renormalised": (RAGGED, [Knockout(layers=(0, 3), mask="both", renormalise=True)]),
    "behind a cut": (RAGGED, [Random(keep=9, layer=1), Knockout(layers=(0, 2), mask="both")]),
    "behind a cut, renormalised": (
        RAGGED,
        [Random(keep=9, layer=1), Knockout(layers=(0, 3), mask="both", renormalise=True)],
    ),
}


def edits(decoder: Decoder, backend: str) -> dict[str, float]:
    """Prefill under each of :data:`EDITS`."""
    return {
        name: edit(decoder, backend, methods, prompt(*images))
        for name, (images, methods) in EDITS.items()
    }


def edit(
    decoder: Decoder, backend: str, methods: Sequence[Method], call: dict[str, Tensor]
) -> float:
    """Logits of ``call`` under ``methods`` that edit attention (and may cut), where tokens are."""
    found, trace = pruned(decoder, backend, methods, call)
    return gap(found, by_hand(decoder, trace, call), alive(trace, call))


def by_hand(decoder: Decoder, trace: list[TraceEntry], call: dict[str, Tensor]) -> Tensor:
    """Logits of the unmodified model with the edits and cuts of ``trace``."""
    model, last = model_of(decoder), call["input_ids"].shape[1] - 1
    wanted = {layer: one for entry in trace for layer, one in entry.edits.items()}
    there = {layer: _there(trace, call, layer) for layer in wanted}
    with edited(model, wanted, there, valid_of(call), last):
        return masked_logits(model, call, visible(trace, call))


def _there(trace: list[TraceEntry], call: dict[str, Tensor], layer: int) -> list[list[int]]:
    """Of each row, positions of the visual tokens that ``layer`` runs on."""
    left = alive([one for one in trace if one.layer is None or one.layer <= layer], call)
    return [
        [place for places in images for place in places if left[row, place]]
        for row, images in enumerate(PROMPTS.spots(call["input_ids"]))
    ]
