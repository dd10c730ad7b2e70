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
