"""Choosing the best tokens, the same way everywhere."""

from __future__ import annotations

import torch
from torch import Tensor


def stable_topk(scores: Tensor, count: int) -> Tensor:
    """Ascending indices int64 ``[..., count]`` of the ``count`` largest of ``scores [..., n]``.

    Equal scores are taken from the lower index (``torch.topk`` promises no order).
    """
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return order[..., :count].sort(dim=-1).values


def first_best(scores: Tensor) -> Tensor:
    """Index int64 ``[...]`` of the largest of ``scores [..., n]``; of equal ones the lowest
    (``torch.argmax`` promises no order)."""
    count = scores.shape[-1]
    best = scores == scores.amax(-1, keepdim=True)
    steps = torch.arange(count, device=scores.device)
    return torch.where(best, steps, count).amin(-1)
