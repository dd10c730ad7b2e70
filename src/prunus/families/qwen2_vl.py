"""Qwen2-VL: every image and video has its own grid, positions have three rows (M-RoPE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower
from prunus.families.towers.packed import Packed
from prunus.families.towers.shapes import frames_shape
from prunus.grid import AnyGrid, Grid


class Qwen2VL(Family):
    """``Qwen2VLForConditionalGeneration``. A visual token is what the tower merges into one: a
    square of ``spatial_merge_size`` patches a side, and in a video ``temporal_patch_size`` frames.
    """

    name = "qwen2-vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    summary = "Qwen2-VL: images and videos of any size, M-RoPE"
    no_merging = ""

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.visual
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.visual.merger
        return projector

    @property
    def reads_tower(self) -> bool:
        return False  # behind the merger: only there is one row one visual token

    def tower_adapter(self) -> Tower:
        return Packed(self.tower, lambda sizes: self._grids("grid_thw", sizes))

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision = config.vision_config  # a tower of embed_dim channels, which gives hidden_size
        tower = frames_shape(vision, vision.embed_dim, int(vision.embed_dim * vision.mlp_ratio))
        return tower, merger_shape(vision, vision.embed_dim, vision.hidden_size)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {
            "image": self.holds(self.config.image_token_id, input_ids, embeds),
            "video": self.holds(self.config.video_token_id, input_ids, embeds),
        }

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        names = {kind: f"{kind}_grid_thw" for kind in ("image", "video")}
        return {
            kind: [*self._grids(name, call[name])]
            for kind, name in names.items()
            if call.get(name) is not None
        }

    def _grids(self, name: str, sizes: Any) -> list[Grid]:
        vision = self.config.vision_config
        merge, cell = vision.spatial_merge_size, vision.spatial_merge_size * vision.patch_size
        return [
            Grid(frames, rows // merge, cols // merge, (cell, cell))
            for frames, rows, cols in self._table(name, sizes)
        ]

    @staticmethod
    def _table(name: str, sizes: Any) -> list[list[int]]:
        """The rows (frames, rows, columns) of the argument ``name``."""
        table = torch.as_tensor(sizes)
        if table.ndim != 2 or table.shape[1] != 3:
            raise PrunusError(
                f"{name} has shape {tuple(table.shape)}: give one row (frames, rows, columns) of "
                "patches for each input, as the processor does"
            )
        rows: list[list[int]] = table.tolist()
        return rows


def merger_shape(vision: Any, width: int, outputs: int) -> ProjectorShape:
    """Two linear layers over the patches of a visual token side by side, each of ``width``
    channels."""
    inputs = width * vision.spatial_merge_size**2
    return ProjectorShape(inputs * (inputs + outputs))
