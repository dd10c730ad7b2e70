"""The oracle for methods that edit attention: eager attention, edited by hand, query by query.

Nothing here uses the engine. Full-length weights are made for every layer and head, and what an
edit takes away is taken away one query at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from prunus import TraceEntry
from tests.support.oracles.decoder import decoder_of


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor,
    scaling: float,
    edit: Any,
    visual: list[list[int]],
    last: int,
    softcap: float | None = None,
) -> Tensor:
    """``[B, H, L, d]``. ``allowed`` bool ``[B, L, L]``; ``visual[b]`` positions of visual tokens
    that are there, in order; the prompt ends at position ``last``. Logits are kept below
    ``softcap``, where the decoder does."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    logits = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits.masked_fill(~allowed[:, None], float("-inf"))
    weights = logits.float().softmax(-1)
    for row, own in enumerate(visual):
        for q in range(query.shape[2]):
            if not own or q < own[0] or not bool(allowed[row, q, q]):
                continue
            is_text = q not in own
            if is_text and q > last:
                continue
            kind = edit.text if is_text else edit.visual
            lost = own[: len(own) // 2] if kind == "half" else own
            if kind == "keep":
                continue
            if kind == "merge":
                sink = own[edit.sink] if own[edit.sink] <= q else own[0]
                mass = weights[row, :, q, own].sum(-1)
                weights[row, :, q, own] = 0
                weights[row, :, q, sink] = mass
            elif edit.renormalise:
                line = logits[row, :, q].clone()
                line[:, lost] = float("-inf")
                weights[row, :, q] = line.float().softmax(-1).nan_to_num(0)
            else:
                weights[row, :, q, lost] = 0
    return weights.to(value.dtype) @ value


@contextmanager
def edited(
    model: Any, trace: list[TraceEntry], spots: list[list[list[int]]], last: int
) -> Iterator[None]:
    """``model`` with the edits of ``trace`` in its attention; ``spots[row][image]``: positions."""
    edits = {layer: edit for entry in trace for layer, edit in entry.edits.items()}
    layers = decoder_of(model).layers
    before = {layer: layers[layer].self_attn.config for layer in edits}

    def function(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **kwargs: Any) -> Any:
        layer = module.layer_idx
        allowed = mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] == 0
        own = [_present(trace, row, images, layer) for row, images in enumerate(spots)]
        cap = kwargs.get("softcap")
        out = attend(q, k, v, allowed, kwargs["scaling"], edits[layer], own, last, cap)
        return out.transpose(1, 2), None

    AttentionInterface.register("edited_oracle", function)
    try:
        for layer in edits:
            config = copy.copy(before[layer])
            config._attn_implementation_internal = "edited_oracle"
            layers[layer].self_attn.config = config
        yield
    finally:
        for layer, config in before.items():
            layers[layer].self_attn.config = config


def _present(trace: list[TraceEntry], row: int, images: list[list[int]], layer: int) -> list[int]:
    """Positions of visual tokens that are there in ``layer``."""
    found = []
    for number, places in enumerate(images):
        alive = set(range(len(places)))
        for entry in trace:
            if (-1 if entry.layer is None else entry.layer) <= layer:
                alive &= set(entry.kept[row][number].tolist())
        found += [places[n] for n in sorted(alive)]
    return found
