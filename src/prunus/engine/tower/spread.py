"""Merged tokens seen as a whole grid again, for methods that need one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prunus.method.signals import Block, Of, Passed, Rows, Source, Turns
from prunus.method.view import View
from prunus.signals.influence import Influence


def spread_view(view: View, slots: Tensor) -> View:
    """``view`` of survivors as one in which every original token is there, each with the states and
    the attention of the survivor that it is part of.

    Args:
        slots: int64 ``[G, N]``, for every original token its survivor's place among the n present.
    """
    return replace(
        view,
        present=torch.arange(view.grid.size, device=slots.device).expand_as(slots),
        sizes=torch.ones_like(slots, dtype=torch.float32),
        source=_Spread(view.source, slots),
        _read={},
    )


def per_survivor(scores: Tensor, slots: Tensor, count: int) -> Tensor:
    """Mean float32 ``[G, count]`` of the scores ``[G, N]`` of the tokens that each survivor stands
    for; ``slots`` as in :func:`spread_view`."""
    at = slots.to(scores.device)
    total = scores.new_zeros(len(scores), count, dtype=torch.float32)
    sizes = torch.zeros_like(total).scatter_add_(1, at, torch.ones_like(at, dtype=torch.float32))
    return total.scatter_add_(1, at, scores.float()) / sizes


class _Spread:
    """Signals of ``source`` for every original token."""

    def __init__(self, source: Source, slots: Tensor) -> None:
        self._source, self._slots = source, slots

    def spread(self, values: Tensor) -> Tensor:
        """``[G, n, ...]`` to ``[G, N, ...]``."""
        at = self._slots.to(values.device)
        at = at.view(*at.shape, *[1] * (values.ndim - 2))
        return values.gather(1, at.expand(*at.shape[:2], *values.shape[2:]))

    def layer(self, number: int | None) -> Any:
        """See :class:`~prunus.method.signals.Source`."""
        return _SpreadLayer(self, self._source.layer(number))

    def block(self, number: Block) -> Any:
        """See :class:`~prunus.method.signals.Source`."""
        return _SpreadBlock(self, self._source.block(number))

    def features(self) -> Tensor:
        """See :class:`~prunus.method.signals.Source`."""
        return self.spread(self._source.features())

    def ahead(self) -> Passed:
        """See :class:`~prunus.method.signals.Source`."""
        return Passed(*map(self.spread, self._source.ahead()))

    def turns(self, layer: int, of: Of) -> Turns:
        """See :class:`~prunus.method.signals.Source`."""
        own = self._source.turns(layer, of)
        return Turns(*map(self.spread, own)) if of == "visual" else own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)  # what is of no single token


class _SpreadLayer:
    def __init__(self, spread: _Spread, layer: Any) -> None:
        self._spread, self._layer = spread, layer

    def pick(self, values: Tensor, of: Of = "visual") -> Tensor:
        own: Tensor = self._layer.pick(values, of)
        return self._spread.spread(own) if of == "visual" else own

    def rows(self, rows: Rows) -> tuple[Tensor, Tensor]:
        weights, valid = self._layer.rows(rows)
        return self._spread.spread(weights.transpose(1, 3)).transpose(1, 3), valid

    def last(self) -> Tensor:
        return self._spread.spread(self._layer.last())

    def influence(self) -> Influence:
        own = self._layer.influence()
        spread = self._spread.spread
        return Influence(spread(own.cosine), spread(own.change), own.output)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


class _SpreadBlock:
    def __init__(self, spread: _Spread, block: Any) -> None:
        self._spread, self._block = spread, block

    def attention(self, rows: Any) -> Tensor:
        return self._spread.spread(self._block.attention(rows))

    def keys(self, rotary: bool, joined: bool) -> Tensor:
        return self._spread.spread(self._block.keys(rotary, joined))
