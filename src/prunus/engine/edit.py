"""Attention of which some weights are taken away: what :class:`~prunus.method.Edit` asks for.

The attention module itself runs. For the time of one call its ``config`` is a copy that names our
function in transformers' own registry of attention functions; that function calls the model's
implementation for what is not edited, and computes the edited rows beside it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prunus.method import Edit

_NAME = "prunus_edited"
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
    """One edit on one layout of one prompt; layers that share both share the job.

    Attributes:
        backend: name of the model's own attention implementation.
    """

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
        if bool(behind.any()):  # text that has no visual token before it
            self._without.append((behind, Rows.of(behind), visual))

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
        mask: Tensor | None,
        kwargs: dict[str, Any],
    ) -> Tensor:
        """Attention output ``[B, S, H, d]`` of queries ``[B, H, S, d]`` over keys and values
        ``[B, H_kv, S, d]``."""
        end, size = self._plain, query.shape[2]
        if end:
            own = _backend(self.backend, module)
            some = {**kwargs}
            if some.get("position_ids") is not None:
                some["position_ids"] = some["position_ids"][..., :end]
            if mask is not None:
                mask = mask[..., :end, :end] if mask.ndim == 4 else mask[:, :end]
            parts = (states[:, :, :end] for states in (query, key, value))
            output, _ = own(module, *parts, mask, **some)
            output = F.pad(output, (0, 0, 0, 0, 0, size - end))
        else:
            output = query.new_zeros(query.shape[0], size, query.shape[1], query.shape[3])
        groups = query.shape[1] // key.shape[1]
        if groups > 1:
            key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        scaling, dropout = kwargs["scaling"], kwargs.get("dropout", 0.0)
        for chosen, rows, lost, merged in self._zeroed:
            part = self._zero(rows, lost, merged, query, key, value, scaling, dropout)
            output = _put(output, part, rows, chosen)
        for chosen, rows, lost in self._without:
            part = self._leave_out(rows, lost, query, key, value, scaling, dropout)
            output = _put(output, part, rows, chosen)
        return output

    def _zero(
        self,
        rows: Rows,
        lost: Tensor,
        merged: bool,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        dropout: float,
    ) -> Tensor:
        """``[B, R, H, d]``: the softmax over all keys, then zeros at ``lost``; or all their weight
        on the sink."""
        device, (batch, heads, size, _) = query.device, query.shape
        lost, index = lost.to(device), rows.index.to(device)
        slots = torch.arange(size, device=device)
        valid = None if self._places.valid is None else self._places.valid.to(device)
        taken, parts = rows.take(query), []
        step = max(1, _ELEMENTS // (batch * heads * size))
        for start in range(0, index.shape[1], step):
            at = index[:, start : start + step, None]
            visible = slots <= at
            if valid is not None:
                visible = (visible & valid[:, None]) | (slots == at)
            logits = torch.matmul(taken[:, :, start : start + step], key.transpose(2, 3)) * scaling
            logits = logits.masked_fill(~visible[:, None], torch.finfo(logits.dtype).min)
            weights = logits.softmax(-1, dtype=torch.float32)
            if merged:
                mass = (weights * lost[:, None, None]).sum(-1, keepdim=True)
                weights = weights.masked_fill(lost[:, None, None], 0.0)
                sink = self._sinks(lost, at[..., 0])[:, None, :, None]
                weights = weights.scatter_add(-1, sink.expand(-1, heads, -1, -1), mass)
            else:
                weights = weights.masked_fill(lost[:, None, None], 0.0)
            weights = F.dropout(weights.to(value.dtype), dropout, dropout > 0)
            parts.append(torch.matmul(weights, value))
        return torch.cat(parts, dim=2).transpose(1, 2)

    def _sinks(self, visual: Tensor, at: Tensor) -> Tensor:
        """Int64 ``[B, r]``: the slot of the visual token that takes the weight of all, for queries
        in the slots ``at``. One that stands before it can only take the first.

        Raises:
            ValueError: a sample with fewer visual tokens.
        """
        counts, wanted = visual.sum(1), self._edit.sink
        least = int(counts[counts > 0].min())
        if not -least <= wanted < least:
            raise ValueError(
                f"sink={wanted}: a sample has only {least} visual tokens in this layer"
            )
        rank = visual.long().cumsum(1)
        number = torch.full_like(counts, wanted + 1) if wanted >= 0 else counts + wanted + 1
        sink = ((rank == number[:, None]) & visual).byte().argmax(1)[:, None]
        return torch.where(sink <= at, sink, visual.byte().argmax(1)[:, None])

    def _leave_out(
        self,
        rows: Rows,
        lost: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        dropout: float,
    ) -> Tensor:
        """``[B, R, H, d]``: attention over the keys that are not ``lost`` (zero without any)."""
        there = ~lost if self._places.valid is None else ~lost & self._places.valid
        keys = Rows.of(there)
        index, real = rows.index.to(query.device), keys.real.to(query.device)
        allowed = (keys.index.to(query.device)[:, None] <= index[..., None]) & real[:, None]
        some = allowed.any(-1, keepdim=True)
        part = F.scaled_dot_product_attention(
            rows.take(query),
            keys.take(key),
            keys.take(value),
            attn_mask=(allowed | ~some)[:, None],
            dropout_p=dropout,
            scale=scaling,
        )
        return (part * some[:, None]).transpose(1, 2)


def _put(output: Tensor, part: Tensor, rows: Rows, chosen: Tensor) -> Tensor:
    """``output [B, S, H, d]`` with ``part [B, R, H, d]`` in the ``chosen`` slots."""
    back = rows.back.to(output.device)[..., None, None].expand(-1, -1, *part.shape[2:])
    full = part.to(output.dtype).gather(1, back)
    return torch.where(chosen.to(output.device)[..., None, None], full, output)


def _backend(name: str, module: nn.Module) -> Callable[..., tuple[Tensor, Any]]:
    """The model's own attention function."""
    eager = sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[attr-defined]
    function: Callable[..., tuple[Tensor, Any]] = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    return function


def _edited(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    job: Job = module.config.prunus_job
    return job.attend(module, query, key, value, attention_mask, kwargs), None


AttentionInterface.register(_NAME, _edited)


class Switch:
    """Turns an attention module over to :func:`_edited` for the time of one call."""

    def __init__(self, attention: Any) -> None:
        self._attention, self._config = attention, attention.config

    def on(self, job: Job) -> None:
        """The next call runs ``job``."""
        config = copy.copy(self._config)
        config._attn_implementation_internal = _NAME
        config.prunus_job = job
        self._attention.config = config

    def off(self) -> None:
        """Back to the model's own configuration."""
        self._attention.config = self._config
