"""LLaVA-NeXT-Video: LLaVA-NeXT, and videos whose frames are pooled in front of the projector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.families.frames import frames_of
from prunus.families.llava import vit_with_mlp
from prunus.families.llava_next import LlavaNext
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.grid import AnyGrid, Grid, Tiles


@dataclass(frozen=True)
class Frame(Grid):
    """A pass of the tower for a frame of a video: its patches, which are pooled behind it."""


class LlavaNextVideo(LlavaNext):
    """``LlavaNextVideoForConditionalGeneration``. Images are those of
    :class:`~prunus.families.llava_next.LlavaNext`. A video is its frames, one behind the other,
    each row by row: squares of ``spatial_pool_stride`` patches a side are one token; what is left
    of a row or column is dropped. There is no newline in it.
    """

    name = "llava-next-video"
    model_types = ("llava_next_video",)
    summary = "LLaVA-NeXT-Video: LLaVA-NeXT, and videos that are pooled"
    no_merging = (
        "behind the tower the model cuts padding away from tiles, and pools frames of a video, by "
        "the places of tokens"
    )

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower, projector = vit_with_mlp(config)
        stride, tile = int(config.spatial_pool_stride), projector.rows
        if config.spatial_pool_mode not in ("average", "max"):
            raise PrunusError(
                f"cannot count the cost of spatial_pool_mode={config.spatial_pool_mode!r}: only "
                "'average' and 'max' take no matrix product"
            )

        def rows(grid: Grid) -> int:
            if isinstance(grid, Frame):
                return (grid.rows // stride) * (grid.cols // stride)
            assert isinstance(tile, int)
            return tile

        return tower, replace(projector, rows=rows)

    def seen_whole(self, kind: str, grids: Sequence[AnyGrid]) -> list[Any]:
        """Frames of a video before they are pooled."""
        if kind != "video":
            return super().seen_whole(kind, grids)
        tile = self._tile
        return [Grid(grid.frames, tile.rows, tile.cols, tile.cell) for grid in grids]

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        video = self.holds(self.config.video_token_id, input_ids, embeds)
        return {**super().placeholders(input_ids, embeds), "video": video}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        found = super().grids_of(call)
        videos = call.get("pixel_values_videos")
        if videos is not None:
            count, frames, height, width = frames_of(videos)
            cell = self.config.spatial_pool_stride * self.config.vision_config.patch_size
            one = Grid(frames, height // cell, width // cell, (cell, cell))
            found["video"] = [one] * count
        return found

    def cells(self, grid: AnyGrid) -> Tensor:
        return super().cells(grid) if isinstance(grid, Tiles) else torch.arange(grid.size)

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        if isinstance(grid, Tiles):
            return super().tower_grids(grid)
        patch = self.config.vision_config.patch_size
        return [Frame(1, self._side, self._side, (patch, patch))] * grid.frames
