"""Merged tokens seen as a whole grid again, for methods that need one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from prunus.method.view import Influence, View


def spread_view(view: View, slots: Tensor) -> View:
    """``view`` of survivors as one in which every original token is there, each with the states and
    the attention of the survivor that it is part of.

    Args:
        slots: int64 ``[G, N]``, for every original token its survivor's place among the n present.
    """

    def spread(values: Tensor) -> Tensor:
        at = slots.to(values.device)
        if values.ndim == 3:
            return values.gather(1, at[..., None].expand(-1, -1, values.shape[-1]))
        return values.gather(1, at)

    def influence(layer: int) -> Influence:
        own = view.influence(layer)
        return Influence(spread(own.cosine), spread(own.change), own.output)

    return replace(
        view,
        present=torch.arange(view.grid.size, device=slots.device).expand_as(slots),
        _states=lambda: spread(view.states),
        _snapshot=lambda layer: spread(view.snapshot(layer)),
        _attention=lambda layer: spread(view.attention(layer)),
        _influence=influence,
        _value_norm=lambda layer: spread(view.value_norm(layer)),
    )


def per_survivor(scores: Tensor, slots: Tensor, count: int) -> Tensor:
    """Mean float32 ``[G, count]`` of the scores ``[G, N]`` of the tokens that each survivor stands
    for; ``slots`` as in :func:`spread_view`."""
    at = slots.to(scores.device)
    total = scores.new_zeros(len(scores), count, dtype=torch.float32)
    sizes = torch.zeros_like(total).scatter_add_(1, at, torch.ones_like(at, dtype=torch.float32))
    return total.scatter_add_(1, at, scores.float()) / sizes
