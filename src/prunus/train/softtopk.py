"""Soft top-k in closed form, with its exact gradient.

With two anchors {0, 1} and squared cost, the entropic optimal transport of Xie et al. (NeurIPS
2020) is a sigmoid whose threshold makes the sum come out: no Sinkhorn iteration is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError

_HALVINGS = 60  # of the bracket: the threshold is exact to rounding


class _SoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, count: Tensor, temperature: float) -> Tensor:
        logits = 2 * scores / temperature
        finite = logits.isfinite()
        # All tokens are above the threshold that lies this far below the least, and none above
        # one that far beyond the greatest.
        low = logits.masked_fill(~finite, torch.inf).amin(-1, keepdim=True) - 40
        high = logits.amax(-1, keepdim=True) + 40
        target = count[..., None]
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = torch.sigmoid(logits - middle).sum(-1, keepdim=True) > target
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        alpha = torch.sigmoid(logits - (low + high) / 2)
        ctx.save_for_backward(alpha)
        ctx.temperature = temperature
        return alpha

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (given,) = gradients
        (alpha,) = ctx.saved_tensors
        weight = alpha * (1 - alpha)
        total = weight.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        mean = (given * weight).sum(-1, keepdim=True) / total
        return 2 / ctx.temperature * weight * (given - mean), mean[..., 0], None


def soft_topk(scores: Tensor, count: Tensor, temperature: float) -> Tensor:
    """Weights in (0, 1) that rise with the scores and sum to ``count``.

    ``alpha_i = sigmoid(2 s_i / temperature - c)``, c found by bisection; differentiable in scores
    and count (arXiv 2606.16067, "Polarisation"; the closed form is ours, tested against Sinkhorn).

    Args:
        scores: float32 or float64 ``[B, N]``; -inf where there is no token.
        count: same dtype ``[B]``, above 0 and below the number of tokens of that row.
        temperature: above 0; towards 0 the weights become a hard top-k.

    Returns:
        ``[B, N]`` of the same dtype; 0 where the score is -inf.

    Raises:
        PrunusError: half precision, in which the threshold cannot be found; a bad temperature.
    """
    if scores.dtype not in (torch.float32, torch.float64):
        raise PrunusError(f"soft_topk needs float32 or float64 scores, not {scores.dtype}")
    if not temperature > 0:
        raise PrunusError(f"temperature={temperature}: it must be above 0")
    with torch.autocast(scores.device.type, enabled=False):
        alpha: Tensor = _SoftTopK.apply(scores, count.to(scores.dtype), temperature)
    return alpha
