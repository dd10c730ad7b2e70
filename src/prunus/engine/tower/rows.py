"""Gathering, merging and spreading rows of a tower's tensors (leading dimensions flattened)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.engine.sums import add_rows
from prunus.families.towers.base import Arrangement


@dataclass(frozen=True)
class Merge:
    """One merge, in rows of a tensor.

    Attributes:
        kept: int64 ``[R']``, ascending rows that stay; owner: int64 ``[R]``, for every row before
            the merge the row that it is part of afterwards.
        source: int64 ``[S]``, rows that go; weight: float32 ``[S]``, the share of the merged row
            that each of them makes up.
    """

    kept: Tensor
    owner: Tensor
    source: Tensor
    weight: Tensor

    def apply(self, states: Tensor) -> Tensor:
        """``[..., S, D]`` with R rows to ``[..., S', D]`` with R'; the weighted mean is computed in
        fp32. Rows that take nothing up are copied bit for bit."""
        device = states.device
        flat = states.flatten(0, -2)
        kept = flat.index_select(0, self.kept.to(device))
        target = self.owner.to(device)[self.source.to(device)]
        # Differences to the destination: only the rows that go are computed with.
        change = flat.index_select(0, self.source.to(device)).float()
        change = change - kept.index_select(0, target).float()
        change = change * self.weight.to(device)[:, None]
        merged = add_rows(kept.float(), target, change).to(kept.dtype)
        return merged.view(*states.shape[:-2], -1, states.shape[-1])

    def spread(self, states: Tensor) -> Tensor:
        """Back to the rows before the merge: each takes the row that it is part of."""
        flat = states.flatten(0, -2).index_select(0, self.owner.to(states.device))
        return flat.view(*states.shape[:-2], -1, states.shape[-1])


def rows_of(arrangement: Arrangement, present: Sequence[Tensor]) -> Tensor:
    """Int64, ascending: the original rows of what is left, those of no token among them.

    ``present``: for each group of frames, int64 ``[G, T]``, the original tokens still there.
    """
    alive, count = _alive(arrangement, present)
    order = alive.long().cumsum(0) - 1
    rows = torch.arange(len(alive), device=alive.device)
    # Scatter instead of nonzero(): the count is known, and nothing is read from the device.
    place = torch.where(alive, order, count)
    return torch.empty(count + 1, dtype=torch.long, device=alive.device).scatter(0, place, rows)[
        :count
    ]


def merge_rows(
    arrangement: Arrangement,
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    sources: Sequence[Tensor],
    destinations: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> Merge:
    """The merge of tokens as a merge of rows: patch k of a source goes into patch k of its
    destination.

    All arguments are lists over groups of frames: ``before`` and ``after`` int64 ``[G, T]``,
    original tokens present; ``sources``, ``destinations`` int64 ``[G, r]``, *original* tokens;
    ``weights`` float32 ``[G, r]``.
    """
    old, _ = _alive(arrangement, before)
    new, _ = _alive(arrangement, after)
    was, now = (alive.long().cumsum(0) - 1 for alive in (old, new))
    rows = rows_of(arrangement, before)
    kept = was[rows_of(arrangement, after)]
    owner = now[rows]
    gone, into, share = [], [], []
    for slots, source, destination, weight in zip(
        arrangement.slots, sources, destinations, weights, strict=True
    ):
        gone.append(_pick(slots, source).flatten())
        into.append(_pick(slots, destination).flatten())
        share.append(weight[..., None].expand(*weight.shape, slots.shape[2]).flatten())
    source = was[torch.cat(gone)]
    owner = owner.scatter(0, source, now[torch.cat(into)])
    return Merge(kept, owner, source, torch.cat(share))


def _pick(slots: Tensor, tokens: Tensor) -> Tensor:
    """Rows ``[G, T, u]`` of ``tokens [G, T]`` from those of all of them."""
    return slots.gather(1, tokens[..., None].expand(-1, -1, slots.shape[2]))


def token_rows(arrangement: Arrangement, present: Sequence[Tensor], group: int) -> Tensor:
    """Int64 ``[G, T, u]``: rows, now, of the tokens of one group of frames."""
    alive, _ = _alive(arrangement, present)
    here = present[group]
    return (alive.long().cumsum(0) - 1)[_pick(arrangement.slots[group], here)]


def _alive(arrangement: Arrangement, present: Sequence[Tensor]) -> tuple[Tensor, int]:
    """Bool over all original rows, and how many are left."""
    alive = torch.ones(arrangement.length, dtype=torch.bool, device=present[0].device)
    count = arrangement.length
    for slots, tokens in zip(arrangement.slots, present, strict=True):
        alive.index_fill_(0, slots.flatten(), False)
        alive.index_fill_(0, _pick(slots, tokens).flatten(), True)
        count += tokens.numel() * slots.shape[2] - slots.numel()
    return alive, count
