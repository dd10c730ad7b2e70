"""The pointer decoder one row at a time, as it runs at inference: no gradients, memory set aside,
and as few operations as give the same numbers (on a GPU each of them is a launch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from prunus.selector.blocks import DecoderBlock


class Steps:
    """:class:`~prunus.selector.blocks.DecoderBlock` after block, for the steps of one selection.

    Args:
        blocks: of the pointer.
        memory: of each block, keys and values ``[B, H, M, D / H]`` of what is pointed at.
        valid: bool ``[B, M]``, slots that exist; None: all.
        steps: how many there will be at most.
        pointing: whether the logits of the last block's attention are wanted.
    """

    def __init__(
        self,
        blocks: Sequence[DecoderBlock],
        memory: Sequence[tuple[Tensor, Tensor]],
        valid: Tensor | None,
        steps: int,
        pointing: bool,
    ) -> None:
        visible = None if valid is None else valid[:, None, None]
        last = len(blocks) - 1
        self._blocks = [
            _Block(block, *memory[number], visible, steps, pointing and number == last)
            for number, block in enumerate(blocks)
        ]

    def __call__(self, states: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """States ``[B, D]`` behind all blocks at ``step``, whose input is ``states [B, D]``, and
        the last attention's logits ``[B, M]``, mean over heads, where they are wanted."""
        logits = None
        for block in self._blocks:
            states, logits = block(states, step)
        return states, logits


class _Block:
    """One block. Its weights are taken out of their modules once: calling a module costs as much
    as a small product."""

    def __init__(
        self,
        block: DecoderBlock,
        keys: Tensor,
        values: Tensor,
        visible: Tensor | None,
        steps: int,
        pointing: bool,
    ) -> None:
        self._memory, self._visible, self._pointing = (keys, values), visible, pointing
        batch, heads, _, width = keys.shape
        self._own = keys.new_empty(2, steps, batch, heads * width)
        self._heads = (batch, heads, width)
        own, cross = block.own, block.cross
        self._norm1, self._norm2 = _norm(block.norm1), _norm(block.norm2)
        self._query, self._key, self._value = map(_affine, (own.query, own.key, own.value))
        self._output, self._asks, self._gives = map(
            _affine, (own.output, cross.query, cross.output)
        )
        norm, up, _, down = block.mlp
        self._norm3, self._up, self._down = _norm(norm), _affine(up), _affine(down)

    def __call__(self, states: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        normed = layer_norm(states, *self._norm1)
        self._own[0, step] = linear(normed, *self._key)
        self._own[1, step] = linear(normed, *self._value)
        key, value = self._held(0, step), self._held(1, step)
        query = linear(normed, *self._query).view(self._heads)[:, :, None]
        mixed = scaled_dot_product_attention(query, key, value)
        states = states + linear(mixed.reshape(states.shape), *self._output)
        query = linear(layer_norm(states, *self._norm2), *self._asks).view(self._heads)[:, :, None]
        mixed, logits = self._looked(query)
        states = states + linear(mixed.reshape(states.shape), *self._gives)
        wide = gelu(linear(layer_norm(states, *self._norm3), *self._up))
        return states + linear(wide, *self._down), logits

    def _held(self, part: int, step: int) -> Tensor:
        """Keys or values ``[B, H, step + 1, D / H]`` of the steps so far."""
        held: Tensor = self._own[part, : step + 1].unflatten(-1, self._heads[1:])
        return held.permute(1, 2, 0, 3)

    def _looked(self, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """What attention to the memory gives ``query [B, H, 1, D / H]``: ``[B, H, 1, D / H]``."""
        keys, values = self._memory
        if not self._pointing:
            return scaled_dot_product_attention(query, keys, values, self._visible), None
        logits = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5
        seen = logits
        if self._visible is not None:
            seen = logits.masked_fill(~self._visible, -torch.inf)
        return seen.softmax(-1) @ values, logits.mean(1)[:, 0]


def _norm(module: Any) -> tuple[tuple[int, ...], Tensor, Tensor, float]:
    return tuple(module.normalized_shape), module.weight, module.bias, module.eps


def _affine(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias
