"""Greedy subsets whose members are far from each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import threshold

from prunus.signals.topk import Lines

_ROUNDING = 1e-6  # of a cosine in float32


def max_min(distance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greedy max-min subset by ``distance`` float32 ``[G, n, n]``.

    The first is the token whose nearest other one is farthest, each next one that whose nearest
    *picked* one is farthest; ties by lower index. Two tokens that are nearest to each other always
    tie: their distance has to be one number, however the product that made it was rounded. What is
    nearer than rounding is equal: the last picks of an even background are ties as well.

    ``distance`` is made use of, and not what it was afterwards.

    Returns:
        int64 ``[G, count]`` in the order of picking, and float32 ``[G, n]``: for every token the
        distance to its nearest other one, the score of the first pick.
    """
    groups, tokens, _ = distance.shape
    distance = threshold(distance, _ROUNDING, 0.0, inplace=True)
    itself = distance.diagonal(dim1=1, dim2=2)
    itself.fill_(torch.inf)
    alone = torch.minimum(distance.amin(1), distance.amin(2))  # as if both halves were made equal
    if tokens == 1:
        alone = torch.zeros_like(alone)
    itself.fill_(-torch.inf)  # none is picked twice
    score, nearest, lines = alone, torch.full_like(alone, torch.inf), Lines(distance)
    picked = torch.zeros(count, groups, dtype=torch.long, device=distance.device)
    for best in picked:
        torch.argmax(score, 1, out=best)
        column = distance.gather(2, best[:, None, None].expand(-1, tokens, 1))[..., 0]
        score = torch.minimum(nearest, lines[best], out=nearest)
        torch.minimum(score, column, out=score)
    return picked.T.contiguous(), alone


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
