"""Runs of tokens in reading order, and how a budget is shared out among them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Crops:
    """``size`` tokens in P runs of L tokens or one less.

    Attributes:
        tokens: int64 ``[P, L]``, which token each is; there: bool ``[P, L]``, false where a run has
            one token less; sizes: int64 ``[P]``.
    """

    tokens: Tensor
    there: Tensor
    sizes: Tensor

    def of(self, values: Tensor) -> Tensor:
        """Values ``[M, size, ...]`` as ``[M, P, L, ...]``."""
        return values[:, self.tokens]

    def mean(self, values: Tensor) -> Tensor:
        """``[M, P]`` of ``[M, P, L]``, which are 0 where there is none."""
        return values.sum(2) / self.sizes


def crops_of(size: int, count: int, device: torch.device) -> Crops:
    """``count`` runs, at most one for each token; the first ones are longer by one where ``size``
    cannot be divided."""
    count = min(count, size)
    sizes = torch.tensor([size // count + (n < size % count) for n in range(count)])
    longest = torch.arange(int(sizes[0]))
    there = longest < sizes[:, None]
    tokens = (sizes.cumsum(0) - sizes)[:, None] + torch.where(there, longest, 0)
    return Crops(tokens.to(device), there.to(device), sizes.to(device))


def shared_out(weights: Tensor, sizes: Tensor, count: int) -> Tensor:
    """Int64 ``[M, P]``: ``count`` tokens by ``weights`` float32 ``[M, P]``, rounded down; one more
    for the largest weights as long as some are over. What a run of ``sizes [P]`` cannot take goes
    to those of the next smaller weights, at last to those of the largest.

    Args:
        count: at most ``sizes.sum()``.
    """
    shares = (weights * count).floor().long()
    falling = torch.sort(weights, dim=1, descending=True, stable=True).indices
    rank = torch.argsort(falling, dim=1)
    shares = shares + (rank < count - shares.sum(1, keepdim=True))
    found = list(shares.gather(1, falling).unbind(1))
    room = sizes[falling].unbind(1)
    over = count - shares.sum(1)  # zero, but for weights that do not sum to one
    for turn in range(2 * len(found)):
        place = turn % len(found)
        wanted = found[place] + over
        found[place] = torch.minimum(wanted, room[place])
        over = wanted - found[place]
    return torch.stack(found, 1).gather(1, rank)
