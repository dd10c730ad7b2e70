"""Qwen2.5-VL: Qwen2-VL with a tower most of whose blocks see windows only."""

from __future__ import annotations

from typing import Any

from prunus.families.qwen2_vl import Qwen2VL, merger_shape
from prunus.families.shapes import ProjectorShape, TowerShape, WindowedShape
from prunus.families.towers.base import Tower
from prunus.families.towers.windows import Windows


class Qwen25VL(Qwen2VL):
    """``Qwen2_5_VLForConditionalGeneration``. Window attention and the order in which the tower
    works through its windows stay inside the tower: its output is row-major again, frame by frame.
    """

    name = "qwen2.5-vl"
    model_types = ("qwen2_5_vl",)
    summary = "Qwen2.5-VL: images and videos of any size, window attention, M-RoPE"

    def tower_adapter(self) -> Tower:
        return Windows(self.tower, lambda sizes: self._grids("grid_thw", sizes))

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision = config.vision_config
        tower = WindowedShape(
            layers=vision.depth,
            width=vision.hidden_size,
            ffn=vision.intermediate_size,
            patch_inputs=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
            merge=vision.spatial_merge_size,
            window=vision.window_size // vision.spatial_merge_size // vision.patch_size,
            full=frozenset(vision.fullatt_block_indexes),
        )
        return tower, merger_shape(vision, vision.hidden_size, vision.out_hidden_size)
