"""What is dropped, recycled into a few means (SparseVLM, arXiv 2410.04417)."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.signals.density import density_peaks
from prunus.signals.topk import places_of, stable_topk

_SHARE, _EACH = 0.3, 10  # of what goes, and tokens of a cluster


def centres(gone: int) -> int:
    """How many clusters ``gone`` tokens are recycled into, of 10 tokens each but for the last."""
    return (int(_SHARE * gone) + 1) // _EACH + 1 if gone else 0


def taken(gone: int, count: int) -> int:
    """How many of ``gone`` tokens are recycled into ``count`` clusters."""
    return min(int(_SHARE * gone) + 1, _EACH * count - 1)


def recycled(kept: Tensor, states: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best 30 % of what goes, around ``count`` density peaks among them.

    Args:
        kept: int64 ``[k]`` of n tokens with ``states [n, D]`` and ``scores [n]``.
        count: of them; where that is fewer than :func:`centres`, fewer tokens are recycled, so
            that there are as many for a peak as else; with 0 none is.

    Returns:
        int64 ``[k + count]``: what is read, in its order, the peaks behind what is kept; and int64
        ``[n]``: what every token becomes part of, -1 for nothing.
    """
    into = torch.full((len(states),), -1, device=states.device)
    into[kept] = kept
    if not count:
        return kept, into
    gone = torch.ones(len(states), dtype=torch.bool, device=states.device).scatter(0, kept, False)
    best = places_of(gone, len(states) - len(kept))
    best = best[stable_topk(scores[best], taken(len(best), count))]
    peaks, nearest = density_peaks(states[best], count)
    into[best] = best[peaks][nearest]
    return torch.cat([kept, best[peaks]]), into
