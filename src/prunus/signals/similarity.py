"""Cosine similarity between the two halves of a bipartite matching."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_BELOW = 2.0  # scores lie in [0, 1]: what is lowered by this ranks behind everything that is not


def unit(features: Tensor) -> Tensor:
    """``[G, T, d]`` of any floating dtype as float32 vectors of length 1."""
    return normalize(features.float(), dim=-1)


def best_partners(
    first: Tensor,
    second: Tensor,
    weights: tuple[Tensor, Tensor] | None = None,
    barred: tuple[Tensor, Tensor] | None = None,
    budget: int = 2**24,
) -> tuple[Tensor, Tensor]:
    """For each of ``first``, its best partner among ``second``.

    The score of a pair is its cosine similarity, moved to [0, 1] as ``(1 + cos) / 2`` so that
    weights below 1 always lower it, times the weights of both. Pairs with a barred member rank
    behind all others instead of being impossible: a caller that needs more pairs than are free
    gets the best of the barred ones.

    Args:
        first, second: ``[G, A, d]`` and ``[G, B, d]``, vectors of length 1.
        weights: ``[G, A]`` and ``[G, B]`` in (0, 1]; barred: bool, likewise.
        budget: scores that exist at a time.

    Returns:
        float32 ``[G, A]`` score of the best pair (below 0 where it is barred) and int64 ``[G, A]``
        index into ``second``; of equal scores the lower index.
    """
    columns = second.transpose(1, 2)
    groups, rows, _ = first.shape
    step = max(1, budget // (groups * second.shape[1]))
    scores, partners = [], []
    for start in range(0, rows, step):
        part = slice(start, start + step)
        score = torch.bmm(first[:, part], columns).add_(1.0).mul_(0.5)
        if weights is not None:
            score.mul_(weights[0][:, part, None]).mul_(weights[1][:, None, :])
        if barred is not None:
            score.add_(barred[0][:, part, None] | barred[1][:, None, :], alpha=-_BELOW)
        best = score.max(dim=-1)
        scores.append(best.values)
        partners.append(best.indices)
    if len(scores) == 1:
        return scores[0], partners[0]
    return torch.cat(scores, dim=1), torch.cat(partners, dim=1)
