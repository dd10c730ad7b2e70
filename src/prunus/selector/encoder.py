"""The selector's encoder: image and question in one bidirectional sequence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prunus.selector.blocks import EncoderBlock
from prunus.selector.config import SelectorConfig


class Encoder(nn.Module):
    """Two pre-norm ViT blocks over ``[X ; g LN(W_p E)]`` of which the image rows are kept (arXiv
    2606.16067, "Encoder"). Text gets a learned type and sines for its order, which the paper leaves
    open; visual features carry their positions already."""

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        width = config.width
        same = config.visual_width == width
        self.inward = nn.Identity() if same else nn.Linear(config.visual_width, width)
        self.text = nn.Linear(config.text_width, width)
        self.text_norm = nn.LayerNorm(width)
        self.text_type = nn.Parameter(torch.zeros(width))
        self.causal = config.causal_encoder
        self.blocks = nn.ModuleList(
            EncoderBlock(width, config.heads, config.mlp_ratio)
            for _ in range(config.encoder_layers)
        )

    def forward(
        self, features: Tensor, valid: Tensor, text: Tensor, text_valid: Tensor, gate: float = 1.0
    ) -> Tensor:
        """Encode.

        Args:
            features: float32 ``[B, N, D_v]``; valid: bool ``[B, N]``.
            text: float32 ``[B, L, D_t]``, word embeddings of the question; text_valid: bool.
            gate: the scheduled scalar g in 0..1; at 0 the question's words are unknown.

        Returns:
            ``[B, N, D]``.
        """
        count, length = features.shape[1], text.shape[1]
        states: Tensor = self.inward(features)
        words = gate * self.text_norm(self.text(text)) + self.text_type
        states = torch.cat([states, words + _waves(length, words.shape[-1], words)], 1)
        there = torch.cat([valid, text_valid], 1)
        visible = there[:, None, None]
        if self.causal:
            order = torch.arange(count + length, device=states.device)
            visible = visible & (order <= order[:, None])
            visible = visible | torch.eye(len(order), dtype=torch.bool, device=states.device)
        elif bool(there.all()):
            visible = None  # type: ignore[assignment]
        for block in self.blocks:
            states = block(states, visible)
        return states[:, :count]


def _waves(length: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines ``[length, width]`` of the word's number."""
    steps = torch.arange(length, device=like.device, dtype=like.dtype)[:, None]
    pairs = torch.arange(0, width, 2, device=like.device, dtype=like.dtype)
    angle = steps * torch.exp(pairs * (-math.log(10_000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
