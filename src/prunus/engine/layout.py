"""Which positions of the full-length prompt are physically there, and where."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Layout:
    """Map between the *logical* positions of a prompt ``[B, L]`` and physical *slots* ``[B, S]``.

    Attributes:
        index: int64 ``[B, S]``, logical position of the token in each slot.
        place: int64 ``[B, S]``, ascending, the logical position that each slot stands at: its
            token's own, unless tokens were reordered.
        valid: bool ``[B, S]``, False in slots that only fill a row up; None when there are none
            (padding of the untouched prompt is what the model's own mask says).
        slot: int64 ``[B, L]``, for each logical position its own slot or, if it is gone, the slot
            of the nearest survivor before it (of the first survivor, if there is none before).
        whole: nothing was removed or moved; slots are logical positions.
        closed: positions are those of a prompt that had only these tokens: 0, 1, 2, ...
    """

    def __init__(
        self,
        index: Tensor,
        valid: Tensor | None,
        slot: Tensor,
        whole: bool,
        present: Tensor,
        place: Tensor | None = None,
        closed: bool = False,
    ) -> None:
        self.closed = closed
        self.index, self.valid, self.slot, self.whole = index, valid, slot, whole
        self._present, self._moved = present, place is not None
        self.place = index if place is None else place

    @classmethod
    def full(cls, present: Tensor) -> Layout:
        """The untouched prompt; ``present`` is bool ``[B, L]``, False for padding."""
        steps = torch.arange(present.shape[1], device=present.device).expand_as(present)
        return cls(steps, None, steps, True, present)

    @property
    def size(self) -> int:
        """Number of slots S per row."""
        return self.index.shape[1]

    @property
    def present(self) -> Tensor:
        """Bool ``[B, L]``: logical positions that are there and no padding."""
        return self._present

    def slots_of(self, positions: Tensor) -> Tensor:
        """Int64 ``[B]``: where the tokens at ``positions`` (int64 ``[B]``, logical) are."""
        return self.slot.gather(1, positions.to(self.slot.device)[:, None])[:, 0]

    def keep(self, present: Tensor, counts: Sequence[int], closed: bool = False) -> Layout:
        """The layout in which only ``present`` (bool ``[B, L]``) positions remain, as left-padded
        rows and in the order they have here; ``closed``: with their positions closed up. ``counts``
        are the row sums of ``present``, known to the caller, so that no value has to be read back
        from the device."""
        size = max(counts)
        # A stable sort of the mask puts what goes first and what stays last, each in order.
        index = torch.sort(present.byte(), dim=1, stable=True).indices[:, -size:]
        valid, slot = None, present.cumsum(1) - 1
        if min(counts) < size:
            pad = torch.tensor([size - count for count in counts], device=present.device)[:, None]
            valid = torch.arange(size, device=present.device)[None] >= pad
            slot = torch.maximum(slot + pad, pad)
        else:
            slot = slot.clamp(min=0)
        kept = Layout(index, valid, slot, False, present, closed=closed or self.closed)
        if not self._moved:
            return kept
        before = self.slot.gather(1, index)
        if valid is not None:
            before = before.masked_fill(~valid, -1)
        return kept.reordered(torch.sort(before, dim=1, stable=True).indices)

    def reordered(self, slots: Tensor) -> Layout:
        """The same positions in another order: slot ``j`` of the new layout holds what slot
        ``slots[:, j]`` (int64 ``[B, S]``, a permutation that leaves padding alone) holds here."""
        new = torch.empty_like(slots).scatter_(1, slots, self._steps(slots))
        index, slot = self.index.gather(1, slots), new.gather(1, self.slot)
        return Layout(index, self.valid, slot, False, self._present, self.place, self.closed)

    def _steps(self, like: Tensor) -> Tensor:
        return torch.arange(self.size, device=like.device).expand_as(like)

    def take(self, states: Tensor, new: Layout) -> Tensor:
        """Gather ``states [B, S, D]`` of this layout into the slots of ``new``: ``[B, S', D]``."""
        return rows_of(states, self._slots_of(new.index))

    def put(self, states: Tensor, full: Tensor) -> Tensor:
        """``full [B, L, D]`` with ``states [B, S, D]`` of this layout in their tokens' places."""
        at = self.index.to(full.device)[..., None].expand(-1, -1, full.shape[-1])
        if self.valid is not None:
            there = self.valid.to(full.device)[..., None]
            states = torch.where(there, states, full.gather(1, at))
        return full.scatter(1, at, states)

    def rows(self, states: Tensor, new: Layout, dim: int, by_place: bool = False) -> Tensor:
        """Like :meth:`take` along dimension ``dim`` of a tensor whose batch dimension is the one
        before the last such axis it shares with the layout: rotary tables ``[..., B|1, S, d]``
        (``dim=-2``) and position ids ``[..., B|1, S]`` (``dim=-1``); ``by_place`` those of the
        places in ``new``, whatever tokens were moved there. Where ``new`` is closed up, they are
        those of as many tokens from the start of each row."""
        wanted = new.place if by_place else new.index
        if new.closed:
            wanted = new._closed_up(self._present.byte().argmax(1, keepdim=True))
        source = self._slots_of(wanted).to(states.device)
        batch = source.shape[0]
        if batch == 1:
            return states.index_select(dim, source[0])
        if dim == -1:
            lead = states.shape[:-2]
            states = states.expand(*lead, batch, states.shape[-1])
            return states.gather(-1, source.expand(*lead, *source.shape))
        lead = states.shape[:-3]
        states = states.expand(*lead, batch, *states.shape[-2:])
        picked = source[..., None].expand(*lead, *source.shape, states.shape[-1])
        return states.gather(-2, picked)

    def _slots_of(self, positions: Tensor) -> Tensor:
        """Int64 ``[B, n]``: where the tokens at ``positions`` (int64 ``[B, n]``, logical) are."""
        return positions if self.whole else self.slot.gather(1, positions)

    def _closed_up(self, start: Tensor) -> Tensor:
        """Int64 ``[B, S]``: places from ``start`` (int64 ``[B, 1]``) on, one for each token."""
        steps = self._steps(self.index).expand_as(self.index)
        if self.valid is None:
            return start + steps
        return (start + steps - (~self.valid).sum(1, keepdim=True)).clamp(min=0)

    def spread(self, states: Tensor) -> Tensor:
        """Back to full length: ``[B, S, D]`` to ``[B, L, D]``, the rows of removed positions
        repeating the nearest survivor before them."""
        return rows_of(states, self.slot)


def rows_of(states: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (int64 ``[B, n]``) of ``states [B, S, D]``: ``[B, n, D]``.

    Rows are copied whole. ``gather`` would look up every number by itself, which on a CPU takes
    many times as long.
    """
    index = index.to(states.device)
    batch, size, width = states.shape
    if batch == 1:
        return states.index_select(1, index[0])
    flat = index + torch.arange(0, batch * size, size, device=index.device)[:, None]
    picked = states.reshape(batch * size, width).index_select(0, flat.flatten())
    return picked.view(batch, -1, width)
