"""The language model as training runs it: one image prefix shared by many short dialogues."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from prunus.recipes.dialogue import HEAD, Packed
from prunus.tasks.words import vocabulary

_START = [vocabulary().index("<s>"), vocabulary().index("USER:")]


def decode(
    model: LlavaForConditionalGeneration,
    features: Tensor,
    places: Tensor,
    text: Packed,
    keep: Tensor | None = None,
) -> Tensor:
    """Last hidden states ``(b, t, width)`` of the text, normed, ready for ``lm_head``.

    ``features`` ``(b, n, width)`` are projected patches and ``places`` ``(b, n)`` int64 their
    indices on the full canvas, ascending. Equal to the unmodified model's forward over each
    dialogue alone, where all patches are given (tested). ``keep`` ``(b, k)`` int64, ascending
    indices into the n patches, drops all others from layer 1 on.
    """
    decoder = model.model.language_model
    batch, visual, _ = features.shape
    table = decoder.embed_tokens
    start = table(torch.tensor([_START], device=features.device)).expand(batch, -1, -1)
    hidden = torch.cat([start, features.to(start.dtype), table(text.ids)], dim=1)
    head = torch.arange(HEAD, device=places.device).expand(batch, -1)
    positions = torch.cat([head, places + HEAD, text.positions], dim=1)
    cos, sin = decoder.rotary_emb(hidden, positions)
    mask = text.visible(HEAD + visual)
    prefix = HEAD + visual
    for depth, layer in enumerate(decoder.layers):
        if depth == 1 and keep is not None:
            hidden, cos, sin = (_reduce(part, keep, prefix) for part in (hidden, cos, sin))
            prefix = HEAD + keep.shape[1]
            mask = text.visible(prefix)
        hidden = decoder_layer(layer, hidden, cos[:, None], sin[:, None], prefix, mask)
    return rms_norm(decoder.norm, hidden[:, prefix:])


def _reduce(rows: Tensor, keep: Tensor, prefix: int) -> Tensor:
    """Drop the visual rows ``(b, n, c)`` that ``keep`` does not name."""
    index = (keep + HEAD)[..., None].expand(-1, -1, rows.shape[-1])
    return torch.cat([rows[:, :HEAD], rows.gather(1, index), rows[:, prefix:]], dim=1)


def rms_norm(norm: Any, hidden: Tensor) -> Tensor:
    """What an RMS norm module of transformers makes of ``hidden`` ``(..., c)``."""
    weight = norm.weight.to(hidden.dtype)  # equal types: otherwise no fused kernel takes them
    return nn.functional.rms_norm(hidden, hidden.shape[-1:], weight, norm.variance_epsilon)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """Attention ``(b, heads, q, dim)`` in two products.

    On two CPU cores and these sizes its backward pass was several times faster than that of the
    fused kernel; autocast is off because it would carry the softmax out in float32.
    """
    with torch.autocast(query.device.type, enabled=False):
        value = value.to(query.dtype)
        hidden = torch.zeros_like(visible, dtype=query.dtype).masked_fill_(~visible, -1e4)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + hidden
        mixed: Tensor = scores.softmax(dim=-1) @ value
    return mixed


def decoder_layer(
    layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor, prefix: int, mask: Tensor
) -> Tensor:
    """One Llama or Qwen2 layer over ``(b, n, c)``, as many key heads as query heads.

    The image prefix is causal by itself, the text follows ``mask``; ``cos`` and ``sin`` are
    ``(b, 1, n, head_dim)``.
    """
    attention, mlp = layer.self_attn, layer.mlp
    batch, length, _ = hidden.shape
    normed = rms_norm(layer.input_layernorm, hidden)
    shape = (batch, length, -1, attention.head_dim)
    query, key, value = (
        part(normed).view(shape).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    cos, sin = cos.to(query.dtype), sin.to(query.dtype)
    query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
    causal = torch.ones(prefix, prefix, dtype=torch.bool, device=hidden.device).tril()
    image = attend(query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], causal)
    words = attend(query[:, :, prefix:], key, value, mask)
    mixed = torch.cat([image, words], dim=2).transpose(1, 2).reshape(batch, length, -1)
    hidden = hidden + attention.o_proj(mixed)
    normed = rms_norm(layer.post_attention_layernorm, hidden)
    out: Tensor = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
    return out
