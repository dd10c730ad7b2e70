"""Video-LLaVA: a tower for images and another for videos, whose frames keep their CLS token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.frames import frames_of
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower, read_block
from prunus.families.towers.shapes import mlp_macs, vit_shape
from prunus.families.towers.vit import ViT
from prunus.grid import AnyGrid, Grid


@dataclass(frozen=True)
class Clip(Grid):
    """The grid of a video, also of one frame: in front of each stands a CLS token."""


class VideoLlava(Family):
    """``VideoLlavaForConditionalGeneration``. The placeholders of an image are its cells, row by
    row (behind the CLS token if ``vision_feature_select_strategy`` is "full"). Those of a video
    are, frame by frame, the CLS token, a mark, and the cells.
    """

    name = "video-llava"
    model_types = ("video_llava",)
    summary = "Video-LLaVA: images and videos, a CLIP tower for each"
    no_merging = ""

    def __init__(self, top: Any) -> None:
        super().__init__(top)
        tower = self.config.vision_config.model_type
        if tower != "clip_vision_model":
            raise PrunusError(
                f"Video-LLaVA with {tower!r} vision towers is not supported: each frame of a video "
                "must begin with a CLS token, as in a 'clip_vision_model'"
            )

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.image_tower
        return tower

    @property
    def towers(self) -> Mapping[str | None, nn.Module]:
        return {"image": self.core.image_tower, "video": self.core.video_tower}

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.multi_modal_projector
        return projector

    def tower_adapter(self) -> Tower:
        return self.tower_adapters()["image"]

    def tower_adapters(self) -> Mapping[str | None, Tower]:
        lead = {"image": self._lead, "video": 1}
        read = read_block(
            self.config.vision_feature_layer, self.config.vision_config.num_hidden_layers
        )
        return {
            kind: ViT(tower, read, 1, lead[str(kind)], self._images)
            for kind, tower in self.towers.items()
        }

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower, full = vit_shape(config.vision_config), config.vision_feature_select_strategy

        def rows(grid: Grid) -> int:
            marked = full == "full" or isinstance(grid, Clip)
            return grid.size + marked

        return tower, ProjectorShape(mlp_macs(config), rows)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {
            "image": self.holds(self.config.image_token_id, input_ids, embeds),
            "video": self.holds(self.config.video_token_id, input_ids, embeds),
        }

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        found: dict[str, list[AnyGrid]] = {}
        images = call.get("pixel_values")
        images = call.get("pixel_values_images") if images is None else images  # the older name
        if images is not None:
            found["image"] = [*self._images(images)]
        videos = call.get("pixel_values_videos")
        if videos is not None:
            count, frames, height, width = frames_of(videos)
            found["video"] = [Clip(frames, *self._size(height, width))] * count
        return found

    def _images(self, pixels: Tensor) -> list[Grid]:
        images, _, height, width = pixels.shape
        return [Grid(1, *self._size(height, width))] * images

    def _size(self, height: int, width: int) -> tuple[int, int, tuple[int, int]]:
        """Rows, columns and cell of an image or frame of this size."""
        patch = self.config.vision_config.patch_size
        return height // patch, width // patch, (patch, patch)

    def default_grid(self) -> Grid | None:
        side = self.config.vision_config.image_size
        return Grid(1, *self._size(side, side))

    def cells(self, grid: AnyGrid) -> Tensor:
        lead = 1 if isinstance(grid, Clip) else self._lead
        frames = torch.arange(grid.size).view(grid.frames, -1)
        return F.pad(frames, (lead, 0), value=-1).flatten()

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        assert isinstance(grid, Grid)
        return [type(grid)(1, grid.rows, grid.cols, grid.cell)] * grid.frames

    @property
    def _lead(self) -> int:
        """Marks in front of the cells of an image."""
        return int(self.config.vision_feature_select_strategy == "full")
