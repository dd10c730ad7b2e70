"""GLM-4.1V, GLM-4.5V and GLM-4.6V: videos fill placeholders of images, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from prunus.families.qwen2_vl import Qwen2VL
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower
from prunus.families.towers.glm import Glm
from prunus.families.towers.shapes import frames_shape
from prunus.grid import AnyGrid, Grid


class Glm4V(Qwen2VL):
    """``Glm4vForConditionalGeneration``, the mixture of experts of the same name and
    ``Glm46VForConditionalGeneration``.

    Images and videos fill the same placeholder; those of a video stand between
    ``video_start_token_id`` and ``video_end_token_id``, in one run for each time step, which ends
    with its timestamp. In the unmodified models a prompt with images and videos fails, and so do
    beams over videos; beams over several images of a sample are given the wrong ones.
    """

    name = "glm-4v"
    model_types = ("glm4v", "glm4v_moe", "glm46v")
    summary = "GLM-4.1V, 4.5V and 4.6V: images or videos of any size, timestamps, M-RoPE"
    mixes_repeats = True

    def tower_adapter(self) -> Tower:
        return Glm(self.tower, lambda sizes: self._grids("grid_thw", sizes))

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision = config.vision_config
        width, outputs = vision.hidden_size, vision.out_hidden_size
        tower = frames_shape(vision, width, outputs)  # its MLP has as many channels inside
        joined = width * vision.spatial_merge_size**2 * outputs
        inside = 3 * getattr(vision, "intermediate_size", outputs)
        return replace(tower, ffn_matrices=3), ProjectorShape(joined + outputs * (outputs + inside))

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        config = self.config
        visual, begin, end = (
            self.holds(token, input_ids, embeds).long()
            for token in (
                config.image_token_id,
                config.video_start_token_id,
                config.video_end_token_id,
            )
        )
        inside = begin.cumsum(-1) > end.cumsum(-1)
        visual = visual.bool()
        return {"image": visual & ~inside, "video": visual & inside}

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        return [
            Grid(1, part.rows, part.cols, part.cell)
            for part in grid.parts
            for _ in range(part.frames)
        ]
