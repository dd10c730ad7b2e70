"""How many of some scores stand out."""

from __future__ import annotations

import torch
from torch import Tensor


def outliers(scores: Tensor) -> Tensor:
    """How many (int64, one) of ``scores [n]`` lie above the third quartile by more than one and a
    half times the distance of the quartiles, which are interpolated linearly (PruMerge, arXiv
    2403.15388)."""
    quarters = scores.new_tensor([0.25, 0.75], dtype=torch.float32)
    low, high = torch.quantile(scores.float(), quarters)
    many: Tensor = (scores > high + 1.5 * (high - low)).sum()
    return many
