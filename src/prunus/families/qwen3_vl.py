"""Qwen3-VL: as Qwen2-VL, with features that enter behind the first decoder layers (DeepStack)."""

from __future__ import annotations

from typing import Any

from prunus.families.base import Beside, Family
from prunus.families.qwen2_vl import Qwen2VL, merger_shape
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower
from prunus.families.towers.shapes import frames_shape


class Qwen3VL(Qwen2VL):
    """``Qwen3VLForConditionalGeneration`` and the mixture of experts of the same name.

    A video is one run of placeholders per time step, with timestamps as text between: its one grid
    has a frame for each. Features of early tower blocks are added to the visual tokens behind the
    first decoder layers, to those that are still there.
    """

    name = "qwen3-vl"
    model_types = ("qwen3_vl", "qwen3_vl_moe")
    summary = "Qwen3-VL: images and videos of any size, timestamps, DeepStack, interleaved M-RoPE"
    no_merging = (
        "features leave its tower at several depths (DeepStack), where merging would leave "
        "different tokens"
    )

    def tower_adapter(self) -> Tower:
        return Family.tower_adapter(self)  # none: not that of Qwen2-VL

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision = config.vision_config
        tower = frames_shape(vision, vision.hidden_size, vision.intermediate_size)
        mergers = 1 + len(vision.deepstack_visual_indexes)  # one for each depth that is read
        return tower, merger_shape(vision, vision.hidden_size, vision.out_hidden_size, mergers)

    def beside(self, call: dict[str, Any]) -> tuple[dict[str, Any], list[Beside]]:
        places, features = call.get("visual_pos_masks"), call.get("deepstack_visual_embeds")
        if places is None or not features:
            return call, []
        rest = {**call, "visual_pos_masks": None, "deepstack_visual_embeds": None}
        return rest, [Beside(layer, places, values) for layer, values in enumerate(features)]
