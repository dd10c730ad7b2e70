"""What is dropped, recycled into a few means (SparseVLM, arXiv 2410.04417)."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.signals.density import density_peaks
from prunus.signals.topk import stable_topk

_SHARE, _EACH = 0.3, 10  # of what goes, and tokens of a cluster


def centres(gone: int) -> int:
    """How many clusters ``gone`` tokens are recycled into."""
    return (int(_SHARE * gone) + 1) // _EACH + 1 if gone else 0


def recycled(kept: Tensor, states: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best 30 % of what goes, around ``count`` density peaks among them.

    Args:
        kept: int64 ``[k]`` of n tokens with ``states [n, D]`` and ``scores [n]``.

    Returns:
        int64 ``[k + count]``: what is read, in its order, the peaks behind what is kept; and int64
        ``[n]``: what every token becomes part of, -1 for nothing.
    """
    gone = torch.ones(len(states), dtype=torch.bool, device=states.device).scatter(0, kept, False)
    best = gone.nonzero().flatten()
    best = best[stable_topk(scores[best], int(_SHARE * len(best)) + 1)]
    peaks, nearest = density_peaks(states[best], count)
    into = torch.full((len(states),), -1, device=states.device)
    into[kept] = kept
    into[best] = best[peaks][nearest]
    return torch.cat([kept, best[peaks]]), into
