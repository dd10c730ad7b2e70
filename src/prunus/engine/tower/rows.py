"""Gathering, merging and spreading rows of a tower's tensors (leading dimensions flattened)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.engine.sums import add_rows
from prunus.families.towers.base import Arrangement
from prunus.signals.topk import firsts_of, places_of


@dataclass(frozen=True)
class Merge:
    """One merge, in rows of a tensor.

    Attributes:
        kept: int64 ``[R']``, ascending rows that stay; owner: int64 ``[R]``, for every row before
            the merge the row that it is part of afterwards.
        source: int64 ``[S]``, rows that go; target: int64 ``[S]``, the rows afterwards that these
            become part of; weight: float32 ``[S, 1]``, the share of the merged row that each of
            them makes up.
    """

    kept: Tensor
    owner: Tensor
    source: Tensor
    target: Tensor
    weight: Tensor

    def apply(self, states: Tensor) -> Tensor:
        """``[..., S, D]`` with R rows to ``[..., S', D]`` with R'; the weighted mean is computed in
        fp32. Rows that take nothing up are copied bit for bit."""
        device = states.device
        flat = states.flatten(0, -2)
        kept = flat.index_select(0, self.kept.to(device))
        target = self.target.to(device)
        # Differences to the destination: only the rows that go are computed with.
        change = flat.index_select(0, self.source.to(device)).float()
        change = change.sub_(kept.index_select(0, target)).mul_(self.weight.to(device))
        merged = add_rows(kept.float(), target, change).to(kept.dtype)
        return merged.view(*states.shape[:-2], -1, states.shape[-1])

    def spread(self, states: Tensor) -> Tensor:
        """Back to the rows before the merge: each takes the row that it is part of."""
        flat = states.flatten(0, -2).index_select(0, self.owner.to(states.device))
        return flat.view(*states.shape[:-2], -1, states.shape[-1])


@dataclass(frozen=True)
class Pairs:
    """What merges in one group of frames, in places among the T tokens that are there.

    Attributes:
        source, destination: int64 ``[G, r]``; weight: float32 ``[G, r]``, the share of the merged
            token that each source makes up; rest: int64 ``[G, T - r]``, ascending, what stays.
    """

    source: Tensor
    destination: Tensor
    weight: Tensor
    rest: Tensor


@dataclass(frozen=True)
class Standing:
    """Where what is left of a tower call lies.

    Attributes:
        length: rows now.
        rows: int64 ``[length]``, ascending, which of the original rows they are; None: all.
        slots: for each group of frames, int64 ``[G, T, u]``: the rows now of the ``u`` patches of
            its tokens.
    """

    length: int
    rows: Tensor | None
    slots: Sequence[Tensor]

    @staticmethod
    def of(arrangement: Arrangement, present: Sequence[Tensor]) -> Standing:
        """Where ``present`` (for each group, int64 ``[G, T]``, original tokens) lie in an
        ``arrangement``."""
        if length_of(arrangement, present) == arrangement.length:
            return Standing(arrangement.length, None, arrangement.slots)
        alive = torch.ones(arrangement.length, dtype=torch.bool, device=present[0].device)
        pairs = list(zip(arrangement.slots, present, strict=True))
        for slots, _ in pairs:
            alive.index_fill_(0, slots.flatten(), False)
        for slots, tokens in pairs:
            alive.index_fill_(0, _pick(slots, tokens).flatten(), True)
        length, place = length_of(arrangement, present), alive.cumsum(0) - 1
        found = [place[_pick(slots, tokens)] for slots, tokens in pairs]
        return Standing(length, places_of(alive, length), found)

    def merged(self, chosen: Sequence[Pairs | None]) -> tuple[Merge, Standing]:
        """A merge of tokens as one of rows, patch k of a source into patch k of its destination,
        and where everything is afterwards. None: nothing merges in that group."""
        gone, into, shares = [], [], []
        for slots, one in zip(self.slots, chosen, strict=True):
            if one is not None:
                gone.append(_pick(slots, one.source).flatten())
                into.append(_pick(slots, one.destination).flatten())
                weight = one.weight[..., None]
                shares.append(weight.expand(-1, -1, slots.shape[2]).reshape(-1, 1))
        source, destination, weight = map(_joined, (gone, into, shares))
        stays = torch.ones(self.length, dtype=torch.bool, device=source.device)
        running = stays.index_fill_(0, source, False).cumsum(0)
        left = self.length - len(source)
        place = (running - 1).clamp_(max=left - 1)  # beyond: of an answer that is no merge
        kept, target = firsts_of(running, left), place[destination]
        there = [
            place[own if one is None else _pick(own, one.rest)]
            for own, one in zip(self.slots, chosen, strict=True)
        ]
        rows = kept if self.rows is None else self.rows[kept]
        owner = place.scatter_(0, source, target)
        return Merge(kept, owner, source, target, weight), Standing(left, rows, there)


def length_of(arrangement: Arrangement, present: Sequence[Tensor]) -> int:
    """How many rows are left, those of no token among them; ``present`` as of
    :meth:`Standing.of`."""
    pairs = zip(arrangement.slots, present, strict=True)
    gone = sum(slots.numel() - own.numel() * slots.shape[2] for slots, own in pairs)
    return arrangement.length - gone


def rows_of(arrangement: Arrangement, present: Sequence[Tensor]) -> Tensor:
    """Int64, ascending: the original rows of what is left, those of no token among them;
    ``present`` as of :meth:`Standing.of`."""
    rows = Standing.of(arrangement, present).rows
    return torch.arange(arrangement.length, device=present[0].device) if rows is None else rows


def _pick(slots: Tensor, tokens: Tensor) -> Tensor:
    """Rows ``[G, T, u]`` of ``tokens [G, T]`` from those of all of them."""
    return slots.gather(1, tokens[..., None].expand(-1, -1, slots.shape[2]))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
