"""The language model as training runs it: one image prefix shared by many short dialogues."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from prunus.builtin.dialogue import HEAD, Packed
from prunus.builtin.words import vocabulary

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
        hidden = _layer(layer, hidden, cos[:, None], sin[:, None], prefix, mask)
    return _norm(decoder.norm, hidden[:, prefix:])


def _reduce(rows: Tensor, keep: Tensor, prefix: int) -> Tensor:
    """Drop the visual rows ``(b, n, c)`` that ``keep`` does not name."""
    index = (keep + HEAD)[..., None].expand(-1, -1, rows.shape[-1])
    return torch.cat([rows[:, :HEAD], rows.gather(1, index), rows[:, prefix:]], dim=1)


def _norm(norm: nn.Module, hidden: Tensor) -> Tensor:
    return nn.functional.rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def _layer(
    layer: nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor, prefix: int, mask: Tensor
) -> Tensor:
    """One Llama layer; the image prefix is causal by itself, the text follows ``mask``."""
    attention, mlp = layer.self_attn, layer.mlp
    batch, length, _ = hidden.shape
    normed = _norm(layer.input_layernorm, hidden)
    shape = (batch, length, -1, attention.head_dim)
    query, key, value = (
        part(normed).view(shape).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    cos, sin = cos.to(query.dtype), sin.to(query.dtype)
    query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
    image = nn.functional.scaled_dot_product_attention(
        query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True
    )
    words = nn.functional.scaled_dot_product_attention(
        query[:, :, prefix:], key, value, attn_mask=mask
    )
    mixed = torch.cat([image, words], dim=2).transpose(1, 2).reshape(batch, length, -1)
    hidden = hidden + attention.o_proj(mixed)
    normed = _norm(layer.post_attention_layernorm, hidden)
    return hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
