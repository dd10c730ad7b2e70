"""Kimi-K2.5: images, and clips of a few frames that are pooled into one."""

from __future__ import annotations

from typing import Any

from torch import nn

from prunus.families.qwen2_vl import Qwen2VL
from prunus.families.shapes import ProjectorShape, TowerShape, WindowedShape
from prunus.families.towers.base import Tower
from prunus.families.towers.kimi import Kimi, Pooled
from prunus.grid import Grid


class KimiK25(Qwen2VL):
    """``Kimi_K25ForConditionalGeneration``. A visual token is a square of patches, the mean over
    all frames of its clip.

    A video is cut into clips of a few frames, each a run of placeholders and a row of
    ``video_grid_thw`` of its own, with its time as text in front. Nothing in a call says which
    clips belong together, so that each is an input by itself, with a budget of its own. Pictures
    are padded on the right and below by less than a token, which nothing in a call says either:
    boxes of cells take them to be stretched.
    """

    name = "kimi-k2.5"
    model_types = ("kimi_k25",)
    summary = "Kimi-K2.5: images of any size, clips of videos, low-rank keys and values, experts"

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.vision_tower
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.mm_projector
        return projector

    def tower_adapter(self) -> Tower:
        return Kimi(self.tower, lambda sizes: self._grids("grid_thw", sizes))

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision = config.vision_config
        down, across = vision.merge_kernel_size
        tower = WindowedShape(
            layers=vision.num_hidden_layers,
            width=vision.hidden_size,
            ffn=vision.intermediate_size,
            patch_inputs=3 * vision.patch_size**2,
            merge=1,
            window=1,
            full=frozenset(range(vision.num_hidden_layers)),
            ffn_matrices=2,
            each=lambda grid: down * across * (grid.times if isinstance(grid, Pooled) else 1),
        )
        inputs = vision.hidden_size * down * across
        outputs = config.get_text_config().hidden_size
        return tower, ProjectorShape(inputs * (inputs + outputs), whole=True)

    def _grids(self, name: str, sizes: Any) -> list[Grid]:
        vision = self.config.vision_config
        down, across = vision.merge_kernel_size
        cell = (down * vision.patch_size, across * vision.patch_size)
        return [
            Pooled(1, rows // down, cols // across, cell, times=times)
            for times, rows, cols in self._table(name, sizes)
        ]
