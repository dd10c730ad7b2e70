"""Qwen3-VL: as Qwen2-VL, with features that enter behind the first decoder layers (DeepStack)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prunus.families.base import Beside
from prunus.families.qwen2_vl import Qwen2VL, merger_shape
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower
from prunus.families.towers.deepstack import DeepStack
from prunus.families.towers.shapes import frames_shape


class Qwen3VL(Qwen2VL):
    """``Qwen3VLForConditionalGeneration`` and the mixture of experts of the same name.

    A video is one run of placeholders per time step, with timestamps as text between: its one grid
    has a frame for each. Features of early tower blocks are added to the visual tokens behind the
    first decoder layers, to those that are still there. What merges inside the tower takes the
    features of earlier blocks along.
    """

    name = "qwen3-vl"
    model_types = ("qwen3_vl", "qwen3_vl_moe")
    summary = "Qwen3-VL: images and videos of any size, timestamps, DeepStack, interleaved M-RoPE"

    def tower_adapter(self) -> Tower:
        return DeepStack(self.tower, lambda sizes: self._grids("grid_thw", sizes))

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision = config.vision_config
        tower = frames_shape(vision, vision.hidden_size, vision.intermediate_size)
        merger = merger_shape(vision, vision.hidden_size, vision.out_hidden_size)
        early = tuple((block, merger.macs) for block in vision.deepstack_visual_indexes)
        return tower, replace(merger, early=early)

    def beside(self, call: dict[str, Any]) -> tuple[dict[str, Any], list[Beside]]:
        places, features = call.get("visual_pos_masks"), call.get("deepstack_visual_embeds")
        if places is None or not features:
            return call, []
        rest = {**call, "visual_pos_masks": None, "deepstack_visual_embeds": None}
        return rest, [Beside(layer, places, values) for layer, values in enumerate(features)]
