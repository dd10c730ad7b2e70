"""Contextual tokens: some tokens, each with the mean of those that are most like it."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.signals.topk import first_best, places_of


def others_of(tokens: Tensor, count: int) -> Tensor:
    """Int64, ascending: those of ``range(count)`` that are not among ``tokens``, each once."""
    rest = torch.ones(count, dtype=torch.bool, device=tokens.device).scatter(0, tokens, False)
    return places_of(rest, count - len(tokens))


def contextual(
    dominant: Tensor, pool: Tensor, keys: Tensor, few: int, cls: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one image of n tokens, ``dominant`` ones as they are, and of ``pool`` a ``few`` at equal
    distances, each plus the mean of those of the rest whose keys are most like its own (VisionZip,
    arXiv 2412.04467). What is in neither is gone. CLS (``cls``) takes the place of the first token
    that is no survivor.

    Args:
        dominant, pool: int64, disjoint; keys: float32 ``[n, d]``, vectors of length 1.

    Returns:
        int64 ``[k]``, kept tokens, ascending; float32 ``[k, n + 1]``, the sums that they become,
        CLS last; and int64 ``[k]``, the kept tokens as CLS, dominant, contextual.
    """
    count, device = len(keys), keys.device
    targets = pool[torch.arange(0, len(pool), max(1, len(pool) // max(few, 1)))[:few]]
    free = pool[places_of(~torch.isin(pool, targets), len(pool) - len(targets))]
    place = others_of(torch.cat([dominant, targets]), count)[: int(cls)]
    line = torch.cat([place, dominant, targets])
    mix = torch.zeros(count, count + 1, dtype=torch.float32, device=device)
    mix[dominant, dominant] = mix[targets, targets] = 1.0
    mix[place, count] = 1.0
    if few and len(free):
        nearest = targets[first_best(keys[free] @ keys[targets].T)]
        many = keys.new_zeros(count).index_add(0, nearest, keys.new_ones(len(nearest)))
        share = 1.0 / many[nearest]
        mix[nearest, free] = share
    kept = line.sort().values
    return kept, mix[kept], line
