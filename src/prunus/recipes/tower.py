"""The vision side as training sees it: whole canvases or cheap windows of patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration


def project(model: LlavaForConditionalGeneration, pixels: Tensor, places: Tensor) -> Tensor:
    """Projected patches of square windows, as the unmodified model computes them.

    ``pixels`` is ``(b, 3, h, w)`` float32 with h and w multiples of the patch; ``places`` is
    ``(b, n)`` int64, the index of each patch on the full canvas (its position embedding).
    Returns ``(b, n, width)``. The last tower layer is not run: ``vision_feature_layer`` is -2.
    With the full canvas this equals ``get_image_features`` of the model (tested).
    """
    tower = model.model.vision_tower
    embeddings = tower.embeddings
    patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    table = embeddings.position_embedding.weight
    summary = (embeddings.class_embedding + table[0]).expand(len(pixels), 1, -1)
    hidden = torch.cat([summary.to(patches.dtype), patches + table[places + 1]], dim=1)
    hidden = tower.pre_layrnorm(hidden)
    for block in tower.encoder.layers[:-1]:
        hidden = _block(block, hidden)
    projected: Tensor = model.model.multi_modal_projector(hidden[:, 1:])
    return projected


def _block(block: Any, hidden: Tensor) -> Tensor:
    """One CLIP encoder block without mask."""
    attention, mlp = block.self_attn, block.mlp
    batch, length, width = hidden.shape
    normed = block.layer_norm1(hidden)
    shape = (batch, length, -1, attention.head_dim)
    query, key, value = (
        layer(normed).view(shape).transpose(1, 2)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = nn.functional.scaled_dot_product_attention(query, key, value)
    hidden = hidden + attention.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
    out: Tensor = hidden + mlp(block.layer_norm2(hidden))
    return out
