"""Attention of which some weights are taken away: what a :class:`~prunus.method.places.Edit` says.

The model's own attention function runs for what is not edited; the edited rows are computed beside
it, from what that function was given and by its rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunus.engine.attention import HIDDEN, Attention, Given, check, own_attention
from prunus.errors import PrunusError
from prunus.method import Edit
from prunus.signals.attention import row_weights

_ELEMENTS = 2**24  # weights [B, H, rows, S] that exist at a time


@dataclass(frozen=True)
class Places:
    """Where the tokens of a prompt lie, as bool ``[B, S]`` over the slots of one layer.

    Attributes:
        visual: visual tokens; text: prompt tokens that are none, behind the first of them (those
            of an answer that is already known are not among them).
        valid: no padding; None where there is none.
        answers: whether known answers stand behind the prompt.
    """

    visual: Tensor
    text: Tensor
    valid: Tensor | None
    answers: bool


@dataclass(frozen=True)
class Rows:
    """Some slots of each row, gathered: ``index [B, R]`` (left-padded), ``real [B, R]`` and
    ``back [B, S]``, the place of each slot among the R."""

    index: Tensor
    real: Tensor
    back: Tensor

    @classmethod
    def of(cls, chosen: Tensor) -> Rows:
        """Those where ``chosen`` (bool ``[B, S]``) holds."""
        counts = chosen.sum(1)
        size = int(counts.max())
        index = torch.sort(chosen.byte(), dim=1, stable=True).indices[:, chosen.shape[1] - size :]
        back = (chosen.long().cumsum(1) - 1 + (size - counts)[:, None]).clamp(0, max(0, size - 1))
        return cls(index, chosen.gather(1, index), back)

    def take(self, states: Tensor) -> Tensor:
        """``[B, H, S, d]`` to ``[B, H, R, d]``."""
        index = self.index.to(states.device)[:, None, :, None]
        return states.gather(2, index.expand(-1, states.shape[1], -1, states.shape[3]))


class Job:
    """One edit on one layout of one prompt; layers that share both share the job."""

    def __init__(self, edit: Edit, places: Places, backend: str) -> None:
        self.backend = backend
        self._edit, self._places = edit, places
        self._plain = self._end()
        visual, text = places.visual, places.text
        behind = torch.zeros_like(visual)
        behind[:, self._plain :] = True  # rows that the model's own attention does not compute
        if places.valid is not None:
            behind &= places.valid
        self._zeroed: list[tuple[Tensor, Rows, Tensor, bool]] = []  # what they lose; merged?
        self._without: list[tuple[Tensor, Rows, Tensor]] = []  # keys they never see
        for chosen, lost, merged in self._wanted(visual, text):
            behind &= ~chosen
            if not bool(chosen.any()):  # a prompt that ends with its image
                continue
            if edit.renormalise and not merged:
                self._without.append((chosen, Rows.of(chosen), lost))
            else:
                self._zeroed.append((chosen, Rows.of(chosen), lost, merged))
        self._rest: list[tuple[Tensor, Rows, Tensor]] = []  # text with no visual token before it
        if bool(behind.any()):
            self._rest.append((behind, Rows.of(behind), visual))

    def _wanted(self, visual: Tensor, text: Tensor) -> list[tuple[Tensor, Tensor, bool]]:
        """Query rows, keys taken from them, and whether a sink gets the weight."""
        edit, wanted = self._edit, []
        if edit.text == "half":
            rank, count = visual.long().cumsum(1), visual.sum(1, keepdim=True)
            wanted.append((text, visual & (rank <= count // 2), False))
        elif edit.text != "keep":
            wanted.append((text, visual, edit.text == "merge"))
        if edit.visual == "cut":
            wanted.append((visual, visual, False))
        return wanted

    def _end(self) -> int:
        """Slots, from the first on, that the model's own attention has to run over: all of them
        unless everything behind is computed without visual keys."""
        edit, places = self._edit, self._places
        size = places.visual.shape[1]
        if not edit.renormalise or edit.text != "cut" or places.answers:
            return size
        slots = torch.arange(size, device=places.visual.device)
        if edit.visual == "cut":
            first = places.visual.byte().argmax(1)  # 0 where there is none
            return int(first.max())
        return int(torch.where(places.visual, slots + 1, 0).max())

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Any,
        kwargs: dict[str, Any],
        last: Tensor | None = None,
    ) -> Tensor:
        """Attention output ``[B, S, H, d_v]`` for what the model's attention function is given.

        Args:
            last: int64 ``[B]``, slots of a row by which it is checked that the rules of this
                attention are known; None if that was done before.

        Raises:
            PrunusError: they are not.
        """
        given = Given(module, query, key, value, mask, kwargs, self.backend)
        size = query.shape[2]
        end = size if self._sees_behind(given) else self._plain
        own = _backend(self.backend, module)
        if last is not None and end < size:
            check(given, last, given.run()[0])
        if end:
            *part, rest = _part(given, end)
            output, _ = own(module, *part, **rest)
            if last is not None and end == size:
                check(given, last, output)
            output = F.pad(output, (0, 0, 0, 0, 0, size - end))
        else:
            output = query.new_zeros(query.shape[0], size, query.shape[1], value.shape[3])
        for chosen, rows, lost, merged in self._zeroed:
            output = _put(output, self._zero(rows, lost, merged, given), rows, chosen)
        without = self._without + (self._rest if end < size else [])
        for chosen, rows, lost in without:
            output = _put(output, self._leave_out(rows, lost, given), rows, chosen)
        return output

    def _sees_behind(self, given: Given) -> bool:
        """Whether a row that the model's own function is to compute sees keys behind those rows."""
        end, mask = self._plain, given.mask
        if end in (0, given.query.shape[2]):
            return False
        if given.rest.get("position_bias") is not None:
            return True
        if not isinstance(mask, Tensor) or mask.ndim != 4:
            return not given.causal
        seen = mask[..., :end, end:]
        if seen.dtype != torch.bool:
            seen = seen > torch.finfo(seen.dtype).min
        return bool(seen.any())

    def _zero(self, rows: Rows, lost: Tensor, merged: bool, given: Given) -> Tensor:
        """``[B, R, H, d_v]``: the softmax over all keys, then zeros at ``lost``; or all their
        weight on the sink."""
        batch, heads, size, _ = given.query.shape
        device = given.query.device
        lost, index = lost.to(device), rows.index.to(device)
        value, dropout = _per_head(given.value, heads), given.rest.get("dropout", 0.0)
        parts = []
        step = max(1, _ELEMENTS // (batch * heads * size))
        for start in range(0, index.shape[1], step):
            at = index[:, start : start + step]
            weights = given.weights(at)
            taken = weights.masked_fill(lost[:, None, None], 0.0)
            if merged:
                mass = (weights * lost[:, None, None]).sum(-1, keepdim=True)
                sink = self._sinks(lost, at)[:, None, :, None]
                taken = taken.scatter_add(-1, sink.expand(-1, heads, -1, -1), mass)
            taken = F.dropout(taken.to(value.dtype), dropout, dropout > 0)
            parts.append(torch.matmul(taken, value))
        return torch.cat(parts, dim=2).transpose(1, 2)

    def _sinks(self, visual: Tensor, at: Tensor) -> Tensor:
        """Int64 ``[B, r]``: the slot of the visual token that takes the weight of all, for queries
        in the slots ``at``. One that stands before it can only take the first.

        Raises:
            PrunusError: a sample with fewer visual tokens.
        """
        counts, wanted = visual.sum(1), self._edit.sink
        least = int(counts[counts > 0].min())
        if not -least <= wanted < least:
            raise PrunusError(
                f"sink={wanted}: a sample has only {least} visual tokens in this layer"
            )
        rank = visual.long().cumsum(1)
        number = torch.full_like(counts, wanted + 1) if wanted >= 0 else counts + wanted + 1
        sink = ((rank == number[:, None]) & visual).byte().argmax(1)[:, None]
        return torch.where(sink <= at, sink, visual.byte().argmax(1)[:, None])

    def _leave_out(self, rows: Rows, lost: Tensor, given: Given) -> Tensor:
        """``[B, R, H, d_v]``: attention over the keys that are not ``lost`` (zero without any)."""
        query, heads = given.query, given.query.shape[1]
        there = ~lost if self._places.valid is None else ~lost & self._places.valid
        keys = Rows.of(there)
        index = rows.index.to(query.device)
        at = keys.index.to(query.device)[:, None, None]
        visible, softcap, sinks = given.rules(index)
        visible = visible.gather(3, at.expand(-1, *visible.shape[1:3], -1))
        visible = visible.masked_fill(~keys.real.to(query.device)[:, None, None], HIDDEN)
        some = (visible > HIDDEN).any(-1, keepdim=True)
        one, key, value = rows.take(query), keys.take(given.key), keys.take(given.value)
        dropout = given.rest.get("dropout", 0.0)
        key, value = _per_head(key, heads), _per_head(value, heads)
        if given.plain:
            part = F.scaled_dot_product_attention(
                one,
                key,
                value,
                attn_mask=(visible > HIDDEN) | ~some,
                dropout_p=dropout,
                scale=given.scaling,
            )
        else:
            weights = row_weights(one, key, visible, given.scaling, softcap, sinks)
            part = torch.matmul(F.dropout(weights.to(value.dtype), dropout, dropout > 0), value)
        return (part * some).transpose(1, 2)


def _per_head(states: Tensor, heads: int) -> Tensor:
    """Keys or values ``[B, H_kv, S, d]``, repeated for every query head."""
    return states.repeat_interleave(heads // states.shape[1], 1)


def _part(given: Given, end: int) -> tuple[Tensor, Tensor, Tensor, Any, dict[str, Any]]:
    """What the attention function is given for the first ``end`` tokens alone."""
    mask, rest = given.mask, given.rest
    if end < given.query.shape[2]:
        if rest.get("position_ids") is not None:
            rest = {**rest, "position_ids": rest["position_ids"][..., :end]}
        if mask is not None:
            mask = mask[..., :end, :end] if mask.ndim == 4 else mask[:, :end]
    query, key, value = (one[:, :, :end] for one in (given.query, given.key, given.value))
    return query, key, value, mask, rest


def _put(output: Tensor, part: Tensor, rows: Rows, chosen: Tensor) -> Tensor:
    """``output [B, S, H, d]`` with ``part [B, R, H, d]`` in the ``chosen`` slots."""
    back = rows.back.to(output.device)[..., None, None].expand(-1, -1, *part.shape[2:])
    full = part.to(output.dtype).gather(1, back)
    return torch.where(chosen.to(output.device)[..., None, None], full, output)


def _backend(name: str, module: nn.Module) -> Attention:
    """The model's own attention function."""
    return own_attention(name, module)
