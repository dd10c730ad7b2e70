"""The vision side as training sees it: batches of equal size, windows cut without reordering."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from prunus.recipes.decoder import rms_norm


def project(model: Qwen2_5_VLForConditionalGeneration, frames: Tensor) -> Tensor:
    """Visual tokens of slices of two frames, as the unmodified model computes them (tested).

    ``frames`` is ``(n, 3, 2, h, w)`` float32, normalised, with h and w multiples of a token's
    side; the two frames of an image are the same. A video is one row for each pair of frames:
    the tower never looks from one pair to another. Returns ``(n, rows * cols, width)``.
    """
    tower = model.model.visual
    patch, merge = tower.patch_size, tower.spatial_merge_size
    weight = tower.patch_embed.proj.weight
    n, channels, time, high, wide = frames.shape
    rows, cols = high // patch, wide // patch
    parts = frames.reshape(n, channels, time, rows, patch, cols, patch)
    parts = parts.permute(0, 3, 5, 1, 2, 4, 6).reshape(n, rows, cols, -1)
    hidden = nn.functional.linear(parts, weight.flatten(1))
    cos, sin = _angles(tower, rows, cols)
    side = tower.window_size // patch
    for depth, block in enumerate(tower.blocks):
        window = max(rows, cols) if depth in tower.fullatt_block_indexes else side
        hidden = _block(block, hidden, cos, sin, window)
    merger = tower.merger
    hidden = rms_norm(merger.ln_q, hidden)
    hidden = hidden.view(n, rows // merge, merge, cols // merge, merge, -1).transpose(2, 3)
    merged: Tensor = merger.mlp(hidden.reshape(n, rows * cols // merge**2, -1))
    return merged


def _angles(tower: Any, rows: int, cols: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``(rows, cols, 1, 1, head_dim)`` of the rotary embedding."""
    freq = tower.rotary_pos_emb.inv_freq
    down = torch.arange(rows, device=freq.device)[:, None, None] * freq
    right = torch.arange(cols, device=freq.device)[None, :, None] * freq
    angle = torch.cat([down.expand(-1, cols, -1), right.expand(rows, -1, -1)], dim=-1)
    angle = torch.cat([angle, angle], dim=-1)[:, :, None, None]
    return angle.cos(), angle.sin()


def _block(block: Any, hidden: Tensor, cos: Tensor, sin: Tensor, window: int) -> Tensor:
    """One block over ``(n, rows, cols, c)``."""
    attention, mlp = block.attn, block.mlp
    n, rows, cols, _ = hidden.shape
    normed = rms_norm(block.norm1, hidden)
    parts = attention.qkv(normed).view(n, rows, cols, 3, attention.num_heads, -1)
    turned, value = parts[..., :2, :, :], parts[..., 2:, :, :]
    low, high = turned.chunk(2, dim=-1)
    cos, sin = cos.to(turned.dtype), sin.to(turned.dtype)
    turned = turned * cos + torch.cat([-high, low], dim=-1) * sin
    mixed = _by_windows(torch.cat([turned, value], dim=3), window)
    hidden = hidden + attention.proj(mixed)
    normed = rms_norm(block.norm2, hidden)
    out: Tensor = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
    return out


def _by_windows(parts: Tensor, window: int) -> Tensor:
    """Attention inside windows, smaller at the right and lower border.

    ``parts`` is ``(n, rows, cols, 3, heads, dim)``; returns ``(n, rows, cols, heads * dim)``.
    """
    rows, cols = parts.shape[1:3]
    bands = []
    for top, bottom in _spans(rows, window):
        band = []
        for left, right in _spans(cols, window):
            area = parts[:, top:bottom, left:right]
            band.append(_attend(area, min(window, bottom - top), min(window, right - left)))
        bands.append(torch.cat(band, dim=2))
    return torch.cat(bands, dim=1)


def _spans(length: int, window: int) -> list[tuple[int, int]]:
    """What whole windows cover of a side, and what is left of it."""
    whole = length // window * window
    return [(low, high) for low, high in ((0, whole), (whole, length)) if high > low]


def _attend(parts: Tensor, high: int, wide: int) -> Tensor:
    """Attention in windows of ``high`` x ``wide`` patches that fill the area.

    In two products: on two CPU cores their backward pass is faster than that of the fused kernel.
    """
    n, rows, cols, _, heads, dim = parts.shape
    down, across = rows // high, cols // wide
    cut = parts.view(n, down, high, across, wide, 3, heads, dim)
    cut = cut.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, -1, heads, high * wide, dim)
    query, key, value = cut.unbind(0)
    with torch.autocast(parts.device.type, enabled=False):
        scores = (query * dim**-0.5) @ key.transpose(-1, -2)
        mixed = scores.softmax(dim=-1) @ value
    mixed = mixed.view(n, down, across, heads, high, wide, dim).permute(0, 1, 4, 2, 5, 3, 6)
    merged: Tensor = mixed.reshape(n, rows, cols, heads * dim)
    return merged
