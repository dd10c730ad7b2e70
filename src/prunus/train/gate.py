"""The noise gate: tokens with little weight drown in noise, so that training need not drop them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

_MOMENTUM = 0.02
_EDGE = 1e-6


class NoiseGate(nn.Module):
    """Variance-preserving noise on the visual features: ``sqrt(a) x + sqrt(1 - a) e`` with fresh
    normal noise (arXiv 2606.16067, "VP noise gate").

    Features of a vision tower have neither mean 0 nor deviation 1. "matched" does what is printed
    to standardised features, with running mean and deviation per channel; "unit" takes them as
    they are.
    """

    mean: Tensor
    deviation: Tensor
    batches: Tensor

    def __init__(self, width: int, noise: Literal["matched", "unit"]) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def observe(self, features: Tensor, valid: Tensor) -> None:
        """Take ``features [B, N, D]``, where ``valid [B, N]``, into the running statistics."""
        if self.noise == "unit":
            return
        rows = features[valid].float()
        mean, deviation = rows.mean(0), rows.std(0, unbiased=False).clamp_min(1e-6)
        first = self.batches == 0
        share = torch.where(first, 1.0, _MOMENTUM)
        self.mean.lerp_(mean, share)
        self.deviation.lerp_(deviation, share)
        self.batches += 1

    def forward(self, features: Tensor, alpha: Tensor) -> Tensor:
        """``features [B, N, D]`` and weights ``alpha [B, N]`` to gated ones, float32 or wider."""
        centred = features.to(torch.promote_types(features.dtype, torch.float32)) - self.mean
        # Away from 0 and 1, where the slope of a square root is infinite.
        weight = alpha[..., None].clamp(_EDGE, 1 - _EDGE)
        noise = torch.randn_like(centred) * self.deviation
        kept: Tensor = weight.sqrt() * centred + (1 - weight).sqrt() * noise
        return kept + self.mean


class Denoiser(nn.Module):
    """One transformer block whose attention mask is the identity: each token sees itself alone, so
    nothing leaks from kept tokens to noisy ones ("Local denoiser"). It starts as the identity and
    is used in training only."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        # Softmax over a single key is 1: what is left of attention is value and output.
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)
        for last in (self.output, self.down):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """``[..., D]`` to the same shape."""
        features = features + self.output(self.value(self.norm1(features)))
        out: Tensor = features + self.down(nn.functional.gelu(self.up(self.norm2(features))))
        return out
