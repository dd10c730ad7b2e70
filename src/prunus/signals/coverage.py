"""Greedy subsets that cover: every row is served by the best of those picked."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.signals.topk import Lines

_FRESH = 128  # tokens whose gain is computed anew at a step
_TRIED = 32  # steps before it is asked whether these were enough
_AT_ONCE = 2**18  # numbers that exist at a time, so that they stay in a processor's cache


def greedy_cover(cover: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """Greedily ``count`` tokens, int64 ``[G, count]`` in the order of picking: each next one adds
    most to the sum over rows of the largest value among those picked. Ties by lower index.

    What a token adds never grows, so that what it once added bounds what it adds now: at most steps
    only the tokens with the largest bounds are computed anew. Whether the best of them was the best
    of all is looked at after 32 steps, then after 64 more, and so on; from the first step at which
    it was not, they are made again, with four times as many at each.

    Args:
        cover: float32 ``[G, R, n]``, not negative: how much each token serves each row.
        weight: float32 ``[G, n]``, not negative: what a token adds is multiplied by it.
    """
    columns = cover.transpose(1, 2).contiguous()
    if weight is None:
        weight = torch.ones_like(columns[..., 0])
    groups, tokens, _ = columns.shape
    picked = torch.zeros(groups, 0, dtype=torch.long, device=columns.device)
    tried, fresh = count if tokens <= _FRESH else _TRIED, _FRESH
    while picked.shape[1] < count:
        more = min(tried, count - picked.shape[1])
        some, sure = cover_lazily(columns, weight, picked, more, fresh)
        held: list[bool] = sure.tolist()
        right = (*held, False).index(False)
        picked = torch.cat([picked, some[:, :right]], 1)
        tried, fresh = (2 * tried, _FRESH) if right == more else (_TRIED, 4 * fresh)
    return picked


def cover_lazily(
    columns: Tensor, weight: Tensor, before: Tensor, count: int, fresh: int
) -> tuple[Tensor, Tensor]:
    """Int64 ``[G, count]``: as :func:`greedy_cover` of ``columns [G, n, R]`` goes on behind the
    tokens picked ``before`` (int64 ``[G, s]``), and bool ``[count]``, at which steps it is that (if
    it was at those in front). All gains are computed anew at the first step, and ``fresh`` at each
    of the others. Without reading from the device."""
    groups, tokens, rows = columns.shape
    lines = Lines(columns)
    served = columns.new_zeros(groups, rows)
    if before.shape[1]:
        served = lines[before].amax(1)
    gone = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, before, True)
    picked = torch.zeros(count, groups, 1, dtype=torch.long, device=columns.device)
    sure = torch.ones(count, groups, dtype=torch.bool, device=columns.device)
    bound = torch.empty_like(weight)
    for step, best in enumerate(picked):
        few = None
        if step == 0 or tokens <= fresh:
            bound = _gains(columns, served).mul_(weight).masked_fill_(gone, -torch.inf)
        else:
            highest, few = bound.topk(fresh, dim=1)
            gains = lines[few].sub_(served[:, None]).clamp_min_(0).sum(2)
            gains = gains.mul_(weight.gather(1, few))
            gains.masked_fill_(highest == -torch.inf, -torch.inf)  # those that were picked
            bound.scatter_(1, few, gains)
        torch.argmax(bound, 1, keepdim=True, out=best)
        if few is not None:
            torch.any(few == best, 1, out=sure[step])
        torch.maximum(served, lines[best[:, 0]], out=served)
        for values, value in ((bound, -torch.inf), (gone, True)):
            values.scatter_(1, best, value)
    return picked[..., 0].T.contiguous(), sure.all(1)


def _gains(columns: Tensor, served: Tensor) -> Tensor:
    """Float32 ``[G, n]``: what each of ``columns [G, n, R]`` adds to ``served [G, R]``."""
    step = max(1, _AT_ONCE // max(1, served.numel()))
    parts = [(part - served[:, None]).clamp_min_(0).sum(2) for part in columns.split(step, dim=1)]
    return torch.cat(parts, 1)
