"""Greedy subsets whose members are far from each other."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.signals.topk import first_best

_ROUNDING = 1e-6  # of a cosine in float32


def max_min(distance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greedy max-min subset by ``distance`` float32 ``[G, n, n]``.

    The first is the token whose nearest other one is farthest, each next one that whose nearest
    *picked* one is farthest; ties by lower index. Two tokens that are nearest to each other always
    tie: their distance has to be one number, however the product that made it was rounded. What is
    nearer than rounding is equal: the last picks of an even background are ties as well.

    Returns:
        int64 ``[G, count]`` in the order of picking, and float32 ``[G, n]``: for every token the
        distance to its nearest other one, the score of the first pick.
    """
    groups, tokens, _ = distance.shape
    distance = torch.minimum(distance, distance.transpose(1, 2))
    distance = distance.masked_fill(distance < _ROUNDING, 0.0)
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


def thinned(alike: Tensor, order: Tensor, count: int, step: int = 8) -> Tensor:
    """What is left of a list of tokens that loses, in each round, the ``step`` of its first, third,
    fifth ... whose most similar one among the others (the second, fourth ...) is nearest, until
    ``count`` are left (VisPruner). Those that stay of the former go on in the order of falling
    similarity, in front of the latter, so that the next round splits otherwise.

    Args:
        alike: similarities float32 ``[M, n, n]``; order: int64 ``[M, r]``, some of the n tokens.

    Returns:
        int64 ``[M, count]``, of equal similarities the first went.
    """
    groups, size, _ = alike.shape
    rows = alike.reshape(groups * size, size)
    first = torch.arange(groups, device=alike.device)[:, None] * size
    while count and order.shape[1] > count:
        odd, even = order[:, ::2], order[:, 1::2]
        fewer = min(step, order.shape[1] - count, odd.shape[1])
        barred = alike.new_full((groups, size), -torch.inf).scatter(1, even, 0.0)
        own = rows.index_select(0, (odd + first).flatten()).view(groups, -1, size)
        nearest = own.add_(barred[:, None]).amax(2)
        falling = torch.sort(nearest, dim=1, descending=True, stable=True).indices
        order = torch.cat([odd.gather(1, falling[:, fewer:]), even], 1)
    return order[:, :count]
