"""Greedy subsets that cover: every row is served by the best of those picked."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.signals.topk import first_best

_FRESH = 128  # tokens whose gain is computed anew at a step
_EVERY = 16  # steps after which all are
_FIRST = 48  # steps at the start at which all are: there bounds are far off
_AT_ONCE = 2**18  # numbers that exist at a time, so that they stay in a processor's cache


def greedy_cover(cover: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """Greedily ``count`` tokens, int64 ``[G, count]`` in the order of picking: each next one adds
    most to the sum over rows of the largest value among those picked. Ties by lower index.

    What a token adds never grows, so that what it once added bounds what it adds now: at most steps
    only the tokens with the largest bounds are computed anew, and whether the best of them was the
    best of all is looked at once, at the end. (If ever it was not, all is computed at each step.)

    Args:
        cover: float32 ``[G, R, n]``, not negative: how much each token serves each row.
        weight: float32 ``[G, n]``, not negative: what a token adds is multiplied by it.
    """
    columns = cover.transpose(1, 2).contiguous()
    if weight is None:
        weight = torch.ones_like(columns[..., 0])
    picked, sure = cover_lazily(columns, count, weight)
    return picked if bool(sure) else cover_lazily(columns, count, weight, every=1)[0]


def cover_lazily(
    columns: Tensor, count: int, weight: Tensor, every: int = _EVERY
) -> tuple[Tensor, Tensor]:
    """:func:`greedy_cover` of ``columns [G, n, R]``, and a bool, whether it is that: all gains are
    computed anew at the first steps and at every ``every``-th. Without reading from the device."""
    groups, tokens, rows = columns.shape
    served = columns.new_zeros(groups, rows)
    bound = columns.new_zeros(groups, tokens)
    picked = torch.zeros(groups, count, dtype=torch.long, device=columns.device)
    sure = torch.ones((), dtype=torch.bool, device=columns.device)
    for step in range(count):
        if step < _FIRST or step % every == 0 or tokens <= _FRESH:
            bound = _gains(columns, served) * weight
            bound = bound.scatter(1, picked[:, :step], -torch.inf)
            best = first_best(bound)[:, None]
        else:
            highest, few = bound.topk(_FRESH, dim=1)
            own = columns.gather(1, few[..., None].expand(-1, -1, rows))
            gains = _gains(own, served) * weight.gather(1, few)
            gains = gains.masked_fill(highest == -torch.inf, -torch.inf)  # those that were picked
            bound = bound.scatter(1, few, gains)
            best = first_best(bound)[:, None]
            sure = sure & (few == best).any(1).all()
        picked[:, step : step + 1] = best
        chosen = columns.gather(1, best[..., None].expand(-1, -1, rows))[:, 0]
        served = torch.maximum(served, chosen)
        bound = bound.scatter(1, best, -torch.inf)
    return picked, sure


def _gains(columns: Tensor, served: Tensor) -> Tensor:
    """Float32 ``[G, n]``: what each of ``columns [G, n, R]`` adds to ``served [G, R]``."""
    step = max(1, _AT_ONCE // max(1, served.numel()))
    parts = [(part - served[:, None]).clamp_min_(0).sum(2) for part in columns.split(step, dim=1)]
    return torch.cat(parts, 1)
