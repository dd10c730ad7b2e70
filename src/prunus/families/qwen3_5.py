"""Qwen3.5: as Qwen3-VL without DeepStack, and with linear attention in most decoder layers."""

from __future__ import annotations

from typing import Any

from prunus.families.qwen2_vl import Qwen2VL, merger_shape
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.shapes import frames_shape


class Qwen35(Qwen2VL):
    """``Qwen3_5ForConditionalGeneration`` and the mixture of experts of the same name.

    A video is one run of placeholders per time step, with timestamps as text between. The tower is
    built as that of Qwen2-VL, with a learned position embedding in front of its blocks.
    """

    name = "qwen3.5"
    model_types = ("qwen3_5", "qwen3_5_moe")
    summary = "Qwen3.5: images and videos of any size, timestamps, linear attention, M-RoPE"

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision = config.vision_config
        tower = frames_shape(vision, vision.hidden_size, vision.intermediate_size)
        return tower, merger_shape(vision, vision.hidden_size, vision.out_hidden_size)
