"""The tower of Qwen2.5-VL as transformers builds it: packed, mostly window attention, rotary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunus.families.towers.packed import Packed
from prunus.grid import Grid


class Windows(Packed):
    """As :class:`~prunus.families.towers.packed.Packed`, the tokens of a frame in the order of
    their windows; in blocks that see windows only, ``cu_seqlens`` says where these end.

    Args:
        tower: a ``Qwen2_5_VisionTransformerPretrainedModel``.
        grids: reads the tower's ``grid_thw``.
    """

    def __init__(self, tower: Any, grids: Any) -> None:
        super().__init__(tower, grids)
        self._window = tower.window_size // tower.spatial_merge_size // tower.patch_size

    def _order(self, grid: Grid) -> Tensor:
        rows, cols = torch.meshgrid(torch.arange(grid.rows), torch.arange(grid.cols), indexing="ij")
        across = -(-grid.cols // self._window)
        window = (rows // self._window) * across + cols // self._window
        order: Tensor = window.flatten().argsort(stable=True)
        return order
