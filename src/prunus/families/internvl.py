"""InternVL: tiles whose patches are joined four by four, and behind them a thumbnail of it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.tiles import (
    canvas_by_aspect,
    runs,
    sizes_given,
    tile_by_tile,
    tiles_of,
    with_thumbnail,
)
from prunus.families.towers.base import Tower
from prunus.families.towers.shapes import vit_shape
from prunus.families.towers.tiles import InternViT
from prunus.grid import AnyGrid, Grid


class InternVL(Family):
    """``InternVLForConditionalGeneration``. The placeholders of an image are one run: those of each
    tile, row by row, tiles in reading order, and then those of the thumbnail, if there is more than
    one tile. Pixel shuffle joins squares of patches to one token.

    How many tiles an image has is told by the length of its run. How they are arranged stands
    nowhere in what the processor gives; the model takes, and ignores, ``image_sizes``, rows
    (height, width) of the original pictures, and where these are given the arrangement is what the
    processor makes of them. Without them tiles are parts of which nobody knows where they lie.

    A video is a run of one tile for each frame, which nothing but the text between tells from an
    image: each frame is an image of its own.
    """

    name = "internvl"
    model_types = ("internvl",)
    summary = "InternVL 2.5, 3 and 3.5: tiles and a thumbnail, pixel shuffle"
    takes_sizes = True
    no_merging = ""

    def __init__(self, top: Any) -> None:
        super().__init__(top)
        strategy, vision = self.config.vision_feature_select_strategy, self.config.vision_config
        if strategy != "default":
            raise PrunusError(
                f"InternVL with vision_feature_select_strategy={strategy!r} is not supported: with "
                "the CLS token ('full') the patches of a tile are no square that pixel shuffle "
                "could join"
            )
        height, width = vision.image_size
        if height != width or vision.patch_size[0] != vision.patch_size[1]:
            raise PrunusError(
                f"InternVL with tiles of {height}x{width} pixels and patches of "
                f"{vision.patch_size[0]}x{vision.patch_size[1]} is not supported: pixel shuffle "
                "takes the patches of a tile for a square"
            )

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.vision_tower
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.multi_modal_projector
        return projector

    @property
    def reads_tower(self) -> bool:
        return False  # what enters the projector is one row for each token, but tile by tile

    def tower_adapter(self) -> Tower:
        layer = self.config.vision_feature_layer
        if layer != -1:
            raise PrunusError(
                f"InternVL with vision_feature_layer={layer!r}: methods inside the vision tower "
                "are supported where the last block is read (-1), as in all published models"
            )
        return InternViT(self.tower, self._tile, int(1 / self.config.downsample_ratio))

    def seen_whole(self, kind: str, grids: Sequence[AnyGrid]) -> list[Any]:
        return list(grids)  # the tower sees their tiles, in the order of the prompt

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        side = int(1 / config.downsample_ratio)
        tower = replace(vit_shape(config.vision_config), extra=1, merge=side)  # CLS
        inputs = tower.width * side**2
        width = config.get_text_config().hidden_size
        return tower, ProjectorShape(width * (inputs + width), whole=True)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        ids, embeds = call.get("input_ids", call.get("inputs")), call.get("inputs_embeds")
        if not self.brings_features(call) or (ids is None and embeds is None):
            return {}
        rows = runs(self.placeholders(ids, embeds)["image"])
        own = [end - start for row in rows for start, end in row]
        sizes = sizes_given(call.get("image_sizes"), len(own))
        found = [self._image(run, size) for run, size in zip(own, sizes, strict=True)]
        return {"image": found} if found else {}

    def cells(self, grid: AnyGrid) -> Tensor:
        return tile_by_tile(grid)

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        return tiles_of(grid)

    @property
    def _tile(self) -> Grid:
        vision = self.config.vision_config
        cell = int(1 / self.config.downsample_ratio) * vision.patch_size[0]
        side = vision.image_size[0] // cell
        return Grid(1, side, side, (cell, cell))

    def _image(self, run: int, size: tuple[int, int] | None) -> AnyGrid:
        """Where the tokens of a ``run`` of placeholders lie, of a picture of this ``size`` (height,
        width)."""
        tile = self._tile
        count, rest = divmod(run, tile.size)
        if rest:
            raise PrunusError(
                f"a run of {run} image placeholders does not fit tiles of {tile.size} tokens: let "
                "the processor of this model write them"
            )
        return with_thumbnail(
            tile, count, size, lambda tiles, *size: canvas_by_aspect(tiles, tile, *size)
        )
