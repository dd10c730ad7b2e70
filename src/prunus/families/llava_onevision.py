"""LLaVA-OneVision: tiles of any resolution, several images in small, and videos that are pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunus.errors import PrunusError
from prunus.families.frames import frames_of
from prunus.families.llava_next import LlavaNext
from prunus.grid import AnyGrid, Grid, Tiles


class LlavaOnevision(LlavaNext):
    """``LlavaOnevisionForConditionalGeneration``. An image by itself has the placeholders of
    :class:`~prunus.families.llava_next.LlavaNext`, but where its tiles have too many cells these
    are resized to fewer (``vision_aspect_ratio``). Images that share a sample, told by
    ``batch_num_images``, are padded to a square and seen in one tile each: its cells, row by row,
    and a newline. A video is its frames, one behind the other, each resized to half as many rows
    and columns, rounded up, and one newline behind all of them.
    """

    name = "llava-onevision"
    model_types = ("llava_onevision",)
    summary = "LLaVA-OneVision: tiles, several images, videos that are pooled; SigLIP tower"
    no_merging = ""

    def seen_whole(self, kind: str, grids: Sequence[AnyGrid]) -> list[Any]:
        """Frames of a video before they are halved; images of one tile, or with padding."""
        tile = self._tile
        if kind == "video":
            return [Grid(grid.frames, tile.rows, tile.cols, tile.cell) for grid in grids]
        cut = iter(super().seen_whole(kind, [grid for grid in grids if isinstance(grid, Tiles)]))
        return [next(cut) if isinstance(grid, Tiles) else grid for grid in grids]

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        video = self.holds(self.config.video_token_id, input_ids, embeds)
        return {**super().placeholders(input_ids, embeds), "video": video}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        asked = call.get("vision_aspect_ratio")
        if asked is not None and asked != self.config.vision_aspect_ratio:
            raise PrunusError(
                f"vision_aspect_ratio={asked!r} in a call, {self.config.vision_aspect_ratio!r} in "
                "the model's configuration: set it there"
            )
        found = super().grids_of(call)
        counts = call.get("batch_num_images")
        if found and counts is not None:
            found["image"] = self._by_sample(found["image"], torch.as_tensor(counts).tolist())
        videos = call.get("pixel_values_videos")
        if videos is not None:
            count, frames, _, _ = frames_of(videos)
            # The model halves what its tower sees, whatever the size of a frame.
            side, full = -(-self._side // 2), self._side * self.config.vision_config.patch_size
            found["video"] = [Grid(frames, side, side, (full // side, full // side))] * count
        return found

    def cells(self, grid: AnyGrid) -> Tensor:
        if isinstance(grid, Tiles):
            return super().cells(grid)
        return F.pad(torch.arange(grid.size), (0, 1), value=-1)  # the newline behind it

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        if isinstance(grid, Tiles):
            return super().tower_grids(grid)
        return [self._tile] * grid.frames

    def _by_sample(self, images: list[AnyGrid], counts: list[int]) -> list[AnyGrid]:
        """``images``, ``counts`` of them in each sample, as the model packs them."""
        if sum(counts) != len(images):
            raise PrunusError(
                f"batch_num_images names {counts} images for each sample, but image_sizes has "
                f"{len(images)} rows: give both as the processor does"
            )
        alone = [count == 1 for count in counts for _ in range(count)]
        return [one if own else self._square(one) for one, own in zip(images, alone, strict=True)]

    def _square(self, image: AnyGrid) -> Grid:
        """The one tile of an ``image`` among others: padded to a square, evenly on two sides."""
        overview = image.parts[0]
        height, width = self._size(image)
        longest = max(width, height)
        corner = -((longest - width) // 2), -((longest - height) // 2)
        seen = longest * self._covered
        area = (float(corner[0]), float(corner[1]), seen, seen)
        return Grid(1, overview.rows, overview.cols, overview.cell, area)

    def _joined(self, height: int, width: int, rows: int, cols: int) -> tuple[int, int]:
        """The model itself says: it packs features that are 0, with newlines that are 1."""
        down, across = self._shape(height, width)
        tiles = torch.zeros(1 + down * across, self._side**2, 1)
        (packed,), _ = self.core.pack_image_features(
            [tiles],
            [(height, width)],
            image_newline=torch.ones(1),
            vision_aspect_ratio=self.config.vision_aspect_ratio,
        )
        ends = packed[self._side**2 :, 0].nonzero()[:, 0]
        return len(ends), int(ends[0])
