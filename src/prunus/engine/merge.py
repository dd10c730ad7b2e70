"""What tokens become at a cut: sums of what was there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.engine.answers import Doubts
from prunus.engine.sums import add_rows
from prunus.errors import PrunusError
from prunus.method import Selection


@dataclass(frozen=True)
class Made:
    """What the survivors of one image become.

    Attributes:
        mix: float32 ``[k, n]``, or ``[k, n + 1]`` where the last column is the tower's CLS feature:
            every survivor as a sum of the n tokens that were there.
        into: int64 ``[n]``, for each of them the place among the k that it is now part of, -1 where
            it is part of none.
    """

    mix: Tensor
    into: Tensor

    @classmethod
    def of(
        cls, chosen: Selection, row: int, kept: Tensor, sizes: Tensor, name: str, doubts: Doubts
    ) -> Made | None:
        """Of image ``row`` of an answer that keeps ``kept`` (int64 ``[k]``) of tokens that stand
        for ``sizes`` (float32 ``[n]``) original ones; None where all stay as they are. ``doubts``
        are to be settled before it is used.

        Raises:
            PrunusError: an answer that makes no sense.
        """
        count = len(sizes)
        if chosen.mix is not None and chosen.into is not None:
            raise PrunusError(f"{name}: give mix or into, not both")
        if chosen.weights is not None and chosen.into is None:
            raise PrunusError(f"{name}: weights are for into, which is missing")
        if chosen.mix is not None:
            mix = chosen.mix[row].to(sizes.device).float()
            if mix.shape[0] != len(kept) or mix.shape[1] not in (count, count + 1):
                raise PrunusError(
                    f"{name}: mix has shape {tuple(mix.shape)} for {len(kept)} tokens made of "
                    f"{count}: give [kept, present], or one column more for the CLS feature"
                )
            doubts.add(mix.isfinite().all(), f"{name}: mix holds NaN or infinity")
            if not len(kept):
                return None  # nothing stays
            weight, into = mix[:, :count].abs().max(0)
            # A survivor stands for itself, whoever else took a share of it.
            into = into.masked_fill(weight == 0, -1)
            into[kept] = torch.arange(len(kept), device=into.device)
            return cls(mix, into)
        if chosen.into is None:
            return None
        given = chosen.into[row].to(sizes.device)
        message = (
            f"{name}: into must name one of the kept tokens (or -1) for each of the {count} that "
            "are there, and every kept one itself"
        )
        if given.shape != (count,):
            raise PrunusError(message)
        doubts.add((given[kept] == kept).all(), message)
        stays = torch.isin(given, kept)
        right = (stays | (given == -1)).all()
        doubts.add(right, f"{name}: into names tokens that are not kept")
        if not len(kept):
            return None  # nothing stays
        into = torch.searchsorted(kept, given.clamp(min=0)).masked_fill(~stays, -1)
        if chosen.weights is not None:
            share = chosen.weights[row].to(sizes.device).float()
        else:
            share = sizes if chosen.by_size else torch.ones_like(sizes)
            share = torch.where(stays, share, 0.0)
            total = share.new_zeros(len(kept))
            total = add_rows(total, into.clamp(min=0), share)
            share = share / total[into.clamp(min=0)]
        mix = share.new_zeros(len(kept), count)
        there = torch.arange(count, device=sizes.device)  # one entry in each column, if zero
        return cls(mix.index_put((into.clamp(min=0), there), torch.where(stays, share, 0.0)), into)

    def changed(self, kept: Tensor) -> Tensor:
        """Bool ``[k]``: which are not simply what they were."""
        own = torch.zeros_like(self.mix)
        own[torch.arange(len(kept), device=kept.device), kept] = 1.0
        return (self.mix != own).any(1)

    def sparse(self, present: Tensor, kept: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """For the trace: survivors, what went into them (original indices; ``size`` is the CLS
        feature) and weights, of those that changed."""
        rows = self.changed(kept).nonzero().flatten()
        named = self.mix[rows] != 0
        # A survivor that is made of nothing is named as well, with no weight of its own.
        named[torch.arange(len(rows), device=rows.device), kept[rows]] |= ~named.any(1)
        at, column = named.nonzero().unbind(1)
        names = torch.cat([present, present.new_tensor([size])])
        return present[kept][rows[at]], names[column], self.mix[rows[at], column]


def composed(
    before: Tensor | None, size: int, present: Tensor, kept: Tensor, into: Tensor | None
) -> Tensor | None:
    """Int64 ``[N]``: for every original token the survivor (original index) that it is part of, -1
    for none; None where nothing was ever merged.

    Args:
        before: the same before this cut; present: int64 ``[n]``, what was there; kept: int64
            ``[k]``, original indices of what stays; into: as in :class:`Made`, or None.
    """
    if before is None and into is None:
        return None
    found = torch.full((size + 1,), -1, dtype=torch.long, device=present.device)
    if into is None:
        found[kept] = kept
    else:
        found[present] = torch.where(into >= 0, kept[into.clamp(min=0)], -1) if len(kept) else -1
    if before is None:
        return found[:size]
    return torch.where(before < 0, -1, found[before])


def applied(states: Tensor, made: Made, rows: Tensor) -> Tensor:
    """The new states ``[r, D]`` of the survivors ``rows`` from those that were there, ``[n, D]`` or
    ``[n + 1, D]``; summed in fp32."""
    mix = made.mix[rows].to(states.device)
    if mix.shape[1] > len(states):
        if bool((mix[:, len(states) :] != 0).any()):
            raise PrunusError(
                "new tokens are made of the CLS feature, which is not among these: it is beside "
                "the tower's features (Cut(space='tower')), of a tower that has a CLS token"
            )
        mix = mix[:, : len(states)]
    return (mix @ states[: mix.shape[1]].float()).to(states.dtype)
