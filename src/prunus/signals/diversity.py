"""Greedy subsets whose members are far from each other."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.signals.topk import first_best


def max_min(distance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greedy max-min subset by ``distance`` float32 ``[G, n, n]``.

    The first is the token whose nearest other one is farthest, each next one that whose nearest
    *picked* one is farthest; ties by lower index.

    Returns:
        int64 ``[G, count]`` in the order of picking, and float32 ``[G, n]``: for every token the
        distance to its nearest other one, the score of the first pick.
    """
    groups, tokens, _ = distance.shape
    itself = torch.eye(tokens, dtype=torch.bool, device=distance.device)
    alone = distance.masked_fill(itself, torch.inf).amin(-1)
    if tokens == 1:
        alone = torch.zeros_like(alone)
    score, nearest, picked = alone, torch.full_like(alone, torch.inf), list[Tensor]()
    for _ in range(count):
        best = first_best(score)[:, None]
        picked.append(best)
        row = distance.gather(1, best[..., None].expand(-1, -1, tokens))[:, 0]
        nearest = torch.minimum(nearest, row).scatter(1, best, -torch.inf)
        score = nearest
    order = torch.cat(picked, 1) if picked else alone.new_zeros(groups, 0, dtype=torch.long)
    return order, alone
