"""Where one distribution over tokens has more than another (PriorTR)."""

from __future__ import annotations

import torch
from torch import Tensor


def contrast(posterior: Tensor, prior: Tensor, eps: float) -> Tensor:
    """Each token's term of the Kullback-Leibler divergence: ``P ln((P + eps) / (Q + eps))``.

    Args:
        posterior, prior: ``[..., n]``, not negative, of any scale: each becomes a distribution P or
            Q over its n tokens.
        eps: above 0.

    Returns:
        float32 ``[..., n]``.
    """
    one, other = (_shares(weights.float()) for weights in (posterior, prior))
    return one * torch.log((one + eps) / (other + eps))


def _shares(weights: Tensor) -> Tensor:
    """Of a row of zeros, zeros."""
    return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
