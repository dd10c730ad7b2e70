"""The tower of GLM-4V as transformers builds it: packed, full attention in a frame, rotary."""

from __future__ import annotations

from typing import Any

from torch import nn

from prunus.families.towers.packed import Packed


class Glm(Packed):
    """As :class:`~prunus.families.towers.packed.Packed`; behind the last block a norm of patches,
    and a convolution that joins those of a visual token.

    Args:
        tower: a ``Glm4vVisionModel`` or ``Glm4vMoeVisionModel``.
        grids: reads the tower's ``grid_thw``.
    """

    def __init__(self, tower: Any, grids: Any) -> None:
        super().__init__(tower, grids)
        self._norm: nn.Module = tower.post_layernorm

    @property
    def exit(self) -> nn.Module:
        return self._norm
