"""Choosing the best tokens, the same way everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stable_topk(scores: Tensor, count: int) -> Tensor:
    """Ascending indices int64 ``[..., count]`` of the ``count`` largest of ``scores [..., n]``.

    Equal scores are taken from the lower index (``torch.topk`` promises no order).
    """
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return order[..., :count].sort(dim=-1).values


def places_of(mask: Tensor, count: int) -> Tensor:
    """Ascending indices int64 ``[..., count]`` of where ``mask`` (bool ``[..., n]``) holds, which
    is known to be ``count`` times in each row: unlike ``nonzero``, no value has to be read."""
    return firsts_of(mask.cumsum(-1), count)


def firsts_of(running: Tensor, count: int) -> Tensor:
    """Int64 ``[..., count]``: where ``running`` (int64 ``[..., n]``, how often something was so
    far) first comes to 1, 2, ... ``count``; n where it never does."""
    steps = torch.arange(1, count + 1, device=running.device)
    return torch.searchsorted(running, steps.expand(*running.shape[:-1], -1).contiguous())


def each_place(masks: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """For each of ``masks`` (bool ``[G, n]``, or G of them ``[n]``), ascending indices int64 of
    where it holds; values are read once for all of them."""
    if not len(masks):
        return []
    if isinstance(masks, Tensor):
        counts: list[int] = masks.sum(1).tolist()
        order: Sequence[Tensor] = places_of(masks, max(counts)).unbind()
    else:
        counts = torch.stack([mask.sum() for mask in masks]).tolist()
        order = [places_of(mask, count) for mask, count in zip(masks, counts, strict=True)]
    return [own[:count] for own, count in zip(order, counts, strict=True)]


def rank_in(scores: Tensor, group: Tensor) -> Tensor:
    """Int64 ``[G, n]``: the rank (0 for the largest) of each of ``scores [G, n]`` among those with
    the same number in ``group`` (int64 ``[G, n]``); of equal ones the lower index comes first."""
    first = torch.sort(scores, dim=1, descending=True, stable=True).indices
    order = first.gather(1, torch.sort(group.gather(1, first), dim=1, stable=True).indices)
    line = group.gather(1, order)  # ascending: groups one behind the other, the best first
    rank = torch.arange(line.shape[1], device=line.device) - torch.searchsorted(line, line)
    return torch.empty_like(rank).scatter(1, order, rank)


def first_best(scores: Tensor) -> Tensor:
    """Index int64 ``[...]`` of the largest of ``scores [..., n]``; of equal ones the lowest, as
    ``torch.argmax`` has it (``torch.topk`` promises no order); where some are NaN, any."""
    return scores.argmax(-1)


class Lines:
    """Line after line of matrices ``[G, n, m]``, one of each at a time, as greedy loops ask."""

    def __init__(self, matrices: Tensor) -> None:
        groups, lines, width = matrices.shape
        self._rows = matrices.reshape(groups * lines, width)
        self._first = torch.arange(0, groups * lines, max(lines, 1), device=matrices.device)

    def __getitem__(self, number: Tensor) -> Tensor:
        """``[G, m]``, those of int64 ``[G]``, or ``[G, k, m]``, of ``[G, k]``."""
        if number.ndim == 1:
            return self._rows.index_select(0, number + self._first)
        found = self._rows.index_select(0, (number + self._first[:, None]).flatten())
        return found.view(*number.shape, -1)
