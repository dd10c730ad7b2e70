"""What all proofs share: models, prompts, running pruned, and what may be seen by whom."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import prunus
from prunus import Method, TraceEntry
from tests.support.decoders import DEPTH, Decoder, build
from tests.support.llava import Prompts
from tests.support.oracles.masked import positions, visibility

PROMPTS = Prompts(0)
ONE, RAGGED = (1,), (2, 1)  # images per row


@functools.cache
def model_of(decoder: Decoder) -> Any:
    """The model of a decoder; one for all tests, and what it was after each of them."""
    return build(decoder)


def prompt(*images: int) -> dict[str, Tensor]:
    """A left-padded batch with its position ids; one sample alone comes without mask and ids."""
    inputs = PROMPTS.rows(*images)
    if len(images) == 1:
        del inputs["attention_mask"]
        return inputs
    return placed(inputs)


def placed(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """``inputs`` with their position ids, which count no padding."""
    return {**inputs, "position_ids": positions(None, inputs)}


def valid_of(call: dict[str, Tensor]) -> Tensor:
    """Bool ``[B, L]``: no padding."""
    mask = call.get("attention_mask")
    if mask is None or mask.ndim == 4:
        return torch.ones_like(call["input_ids"]).bool()
    return mask.bool()


def plain(model: Any, call: dict[str, Any]) -> Tensor:
    """Logits of one call as it is."""
    with torch.no_grad():
        logits: Tensor = model(**call).logits
    return logits


def pruned(
    decoder: Decoder, backend: str, methods: Sequence[Method], call: dict[str, Any]
) -> tuple[Tensor, list[TraceEntry]]:
    """Logits and trace of ``call``; the model is left with eager attention, for the oracle."""
    model = model_of(decoder)
    model.set_attn_implementation(backend)
    try:
        with prunus.prune(model, list(methods)) as run:
            return plain(model, call), run.trace
    finally:
        model.set_attn_implementation("eager")


def alive(trace: Sequence[TraceEntry], call: dict[str, Tensor]) -> Tensor:
    """Bool ``[B, L]``: tokens that were never dropped."""
    left = valid_of(call).clone()
    for row, images in enumerate(PROMPTS.spots(call["input_ids"])):
        for number, places in enumerate(images):
            for entry in trace:
                kept = set(entry.kept[row][number].tolist())
                left[row, [p for n, p in enumerate(places) if n not in kept]] = False
    return left


def visible(
    trace: list[TraceEntry], call: dict[str, Tensor], length: int | None = None
) -> list[Tensor]:
    """Bool ``[B, L, L]`` by layer: the most that may be seen; ``length`` is that of the prompt,
    where ``call`` goes beyond it."""
    length = call["input_ids"].shape[1] if length is None else length
    spots = PROMPTS.spots(call["input_ids"][:, :length])
    return visibility(trace, spots, valid_of(call), DEPTH, length)


def gap(found: Tensor, expected: Tensor, where: Tensor | None = None) -> float:
    """Largest difference, relative to the largest logit; ``where`` is bool ``[B, L]``."""
    difference = (found - expected).abs()
    if where is not None:
        difference, expected = difference[where], expected[where]
    return float(difference.max() / expected.abs().max())
