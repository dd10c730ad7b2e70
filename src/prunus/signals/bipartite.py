"""The two sides of a bipartite matching inside a vision tower, and the line they form
afterwards."""

from __future__ import annotations

import torch
from torch import Tensor


def sides(like: Tensor, line: Tensor | None, cls: bool) -> tuple[Tensor, Tensor]:
    """Tokens that give and tokens that take, int64 ``[G, A]`` and ``[G, B]``: every second one.

    Args:
        like: ``[G, T, ...]`` of all tokens.
        line: int64 ``[G, T]``, the place of every token in the order in which they alternate; None:
            their own.
        cls: a CLS token has the first place, and is never merged (ToMe): givers and takers change
            over.
    """
    groups, tokens = like.shape[:2]
    places = torch.arange(tokens, device=like.device).expand(groups, tokens)
    if line is not None:
        places = torch.empty_like(line).scatter_(1, line, places)
    giving, taking = places[:, ::2], places[:, 1::2]
    return (taking, giving) if cls else (giving, taking)


def rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index [G, A]`` of ``values [G, T, d]``."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def best_and_others(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` best of ``scores [G, A]``, int64 ``[G, count]`` ascending, and the others by
    falling score, int64 ``[G, A - count]``; of equal ones the lower index is the better."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return order[:, :count].sort(1).values, order[:, count:]


def lined_up(others: Tensor, giving: Tensor, taking: Tensor, cls: bool) -> Tensor:
    """Int64 ``[G, T]``: the place of every token after a merge, as ToMe lines them up: those that
    found no pair, which are ``others`` among the ``giving`` by falling score (in their order where
    CLS is in front), then those that others went into. What stands for merged ones means
    nothing."""
    if cls:
        others = others.sort(1).values
    line = torch.cat([giving.gather(1, others), taking], dim=1)
    ranks = torch.arange(line.shape[1], device=line.device).expand_as(line)
    tokens = giving.shape[1] + taking.shape[1]
    return torch.zeros(len(line), tokens, dtype=torch.long, device=line.device).scatter_(
        1, line, ranks
    )
