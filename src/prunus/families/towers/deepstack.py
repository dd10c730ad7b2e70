"""The tower of Qwen3-VL as transformers builds it: features of early blocks leave it as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunus.families.towers.packed import Packed


class DeepStack(Packed):
    """As :class:`~prunus.families.towers.packed.Packed`, with projectors of their own for what some
    blocks leave.

    Args:
        tower: a ``Qwen3VLVisionModel`` or ``Qwen3VLMoeVisionModel``.
        grids: reads the tower's ``grid_thw``.
    """

    def __init__(self, tower: Any, grids: Any) -> None:
        super().__init__(tower, grids)
        blocks = tower.deepstack_visual_indexes
        self._early = dict(zip(blocks, tower.deepstack_merger_list, strict=True))

    @property
    def early(self) -> Mapping[int, nn.Module]:
        return self._early
