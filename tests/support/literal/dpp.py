"""Greedy determinants, computed as determinants: in float64, every subset from the start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def determinant(kernel: Tensor, members: Sequence[int]) -> float:
    """Of the rows and columns ``members`` of ``kernel [n, n]``."""
    own = torch.tensor(members)
    return float(torch.linalg.det(kernel.double()[own][:, own]))


def literal_greedy(kernel: Tensor, count: int) -> list[int]:
    """In the order of picking; of equal determinants the lower index."""
    picked: list[int] = []
    while len(picked) < count:
        best, most = -1, -1.0
        for token in range(len(kernel)):
            if token in picked:
                continue
            value = determinant(kernel, [*picked, token])
            if value > most:
                best, most = token, value
        picked.append(best)
    return picked
