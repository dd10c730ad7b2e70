"""Qwen2.5-VL: Qwen2-VL with a tower most of whose blocks see windows only."""

from __future__ import annotations

from prunus.families.qwen2_vl import Qwen2VL
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
