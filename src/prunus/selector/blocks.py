"""Transformer blocks of the selector: bidirectional for its encoder, cached for its decoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Heads(nn.Module):
    """Projections of multi-head attention, apart from each other so that keys and values of a
    memory can be computed once."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def split(self, states: Tensor) -> Tensor:
        """``[B, S, D]`` to ``[B, H, S, D / H]``."""
        heads: Tensor = states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, H, S, D / H]`` of ``states [B, S, D]``."""
        return self.split(self.key(states)), self.split(self.value(states))

    def join(self, mixed: Tensor) -> Tensor:
        """``[B, H, S, D / H]`` to the output ``[B, S, D]``."""
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out


def _mlp(width: int, ratio: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, ratio * width),
        nn.GELU(),
        nn.Linear(ratio * width, width),
    )


class EncoderBlock(nn.Module):
    """A pre-norm ViT block over image and question."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Heads(width, heads)
        self.mlp = _mlp(width, ratio)

    def forward(self, states: Tensor, visible: Tensor | None) -> Tensor:
        """``states [B, S, D]``; ``visible`` bool ``[B, 1, 1|S, S]``, or None for everything."""
        normed = self.norm(states)
        query = self.attention.split(self.attention.query(normed))
        key, value = self.attention.keys_values(normed)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, visible)
        states = states + self.attention.join(mixed)
        out: Tensor = states + self.mlp(states)
        return out


class DecoderBlock(nn.Module):
    """A pre-norm block of the pointer decoder: self-attention over the steps so far, attention to
    the memory, MLP."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.own = nn.LayerNorm(width), Heads(width, heads)
        self.norm2, self.cross = nn.LayerNorm(width), Heads(width, heads)
        self.mlp = _mlp(width, ratio)

    def forward(
        self,
        states: Tensor,
        memory: tuple[Tensor, Tensor],
        valid: Tensor | None,
        extend: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            states: ``[B, 1, D]``, the step's input.
            memory: this block's keys and values of the memory, ``[B, H, M, D / H]``.
            valid: bool ``[B, 1, 1, M]``, memory slots that exist; None: all.
            extend: adds the step's own key and value to those of earlier steps and gives all.

        Returns:
            New states ``[B, 1, D]`` and the cross-attention's logits ``[B, M]``, mean over heads.
        """
        normed = self.norm1(states)
        key, value = extend(*self.own.keys_values(normed))
        query = self.own.split(self.own.query(normed))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        states = states + self.own.join(mixed)
        query = self.cross.split(self.cross.query(self.norm2(states)))
        logits = query @ memory[0].transpose(-1, -2) * query.shape[-1] ** -0.5
        seen = logits if valid is None else logits.masked_fill(~valid, -torch.inf)
        states = states + self.cross.join(seen.softmax(-1) @ memory[1])
        return states + self.mlp(states), logits.mean(1)[:, 0]
