"""LLaVA-NeXT: an overview of the whole picture, and behind it tiles at a higher resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    unpad_image,
)

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.llava import vit_with_mlp
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.tiles import mosaic
from prunus.families.towers.base import Tower, read_block
from prunus.families.towers.vit import ViT
from prunus.grid import AnyGrid, Grid, Tiles

_TOWERS = {"clip_vision_model": "default", "siglip_vision_model": "full"}


class LlavaNext(Family):
    """``LlavaNextForConditionalGeneration``. The placeholders of an image are the overview (the
    whole picture, stretched to a square), row by row, and then the rows of all tiles put together,
    without those that are padding, each row ended by a newline, which is a mark.
    """

    name = "llava-next"
    model_types = ("llava_next",)
    summary = "LLaVA-NeXT (1.6): an overview and tiles of any resolution, CLIP or SigLIP tower"
    no_merging = (
        "behind the tower the model cuts tokens that are padding away by their places in the "
        "tiles, and tokens that were merged into those would be lost"
    )

    def __init__(self, top: Any) -> None:
        super().__init__(top)
        vision, strategy = self.config.vision_config, self.config.vision_feature_select_strategy
        if _TOWERS.get(vision.model_type) != strategy:
            raise PrunusError(
                f"{self.name} with a {vision.model_type!r} vision tower and "
                f"vision_feature_select_strategy={strategy!r} is not supported: features of a tile "
                "must be one for each of its patches, which is so for "
                + " and ".join(f"{tower} with {own!r}" for tower, own in _TOWERS.items())
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
        return False  # tokens that are padding are gone only behind the projector

    def tower_adapter(self) -> Tower:
        has_cls = self.config.vision_config.model_type == "clip_vision_model"
        depth = len(self.core.vision_tower.encoder.layers)
        read = read_block(self.config.vision_feature_layer, depth)
        return ViT(self.tower, read, int(has_cls), 0, lambda pixels: [self._tile] * len(pixels))

    def seen_whole(self, kind: str, grids: Sequence[AnyGrid]) -> list[Any]:
        """Tiles with the padding that the model cuts away behind the tower."""
        whole: list[Any] = []
        for grid in grids:
            overview, tiles = grid.parts
            left = self._left(*self._size(grid))
            if (tiles.rows, tiles.cols) != tuple(left.shape):
                raise PrunusError(
                    f"methods inside the vision tower, and such as look at it, are not supported "
                    f"for {self.name} where an image is cut into tiles that the model resizes "
                    f"behind the tower: it makes {tiles.rows}x{tiles.cols} tokens, which are "
                    f"others, of {left.shape[0]}x{left.shape[1]}. Give smaller pictures, or choose "
                    "a method that looks at no tower"
                )
            whole.append(Tiles((overview, mosaic(self._tile, *self._shape(*self._size(grid))))))
        return whole

    def stays(self, grid: AnyGrid) -> Tensor | None:
        if not isinstance(grid, Tiles):
            return None
        overview = grid.parts[0]
        left = self._left(*self._size(grid)).flatten() + overview.size
        return torch.cat([torch.arange(overview.size), left])

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        return vit_with_mlp(config)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        sizes = call.get("image_sizes")
        if sizes is None:
            return {}
        table = torch.as_tensor(sizes)
        if table.ndim != 2 or table.shape[1] != 2:
            raise PrunusError(
                f"image_sizes has shape {tuple(table.shape)}: give one row (height, width) for "
                "each image, as the processor does"
            )
        return {"image": [self._tiles(height, width) for height, width in table.tolist()]}

    def cells(self, grid: AnyGrid) -> Tensor:
        overview, tiles = grid.parts
        rows = torch.arange(tiles.size).view(tiles.rows, tiles.cols) + overview.size
        ended = F.pad(rows, (0, 1), value=-1)  # the newline behind each row
        return torch.cat([torch.arange(overview.size), ended.flatten()])

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        down, across = self._shape(*self._size(grid))
        return [grid.parts[0]] * (1 + down * across)

    @property
    def _tile(self) -> Grid:
        """What the tower sees at a time."""
        patch = self.config.vision_config.patch_size
        return Grid(1, self._side, self._side, (patch, patch))

    def _size(self, grid: AnyGrid) -> tuple[int, int]:
        """Height and width of the picture, in pixels."""
        overview = grid.parts[0]
        assert overview.area is not None
        _, _, width, height = (round(edge / self._covered) for edge in overview.area)
        return height, width

    def _left(self, height: int, width: int) -> Tensor:
        """Int64 ``[rows, cols]``: the cells of the padded canvas of an image of this size (pixels)
        that are left, numbered row by row over all of it. The model itself says which."""
        side = self._side
        down, across = self._shape(height, width)
        numbers = torch.arange(down * side * across * side).view(1, down * side, across * side)
        left: Tensor = unpad_image(numbers, (height, width))[0]
        return left

    @property
    def _side(self) -> int:
        """Patches along a side of a tile."""
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    @property
    def _covered(self) -> float:
        """The share of a tile's side that its patches cover: below 1 where they leave a rest."""
        vision = self.config.vision_config
        return float(self._side * vision.patch_size / vision.image_size)

    def _shape(self, height: int, width: int) -> tuple[int, int]:
        """Tiles down and across that the model cuts an image of this size into."""
        config = self.config
        shape: tuple[int, int] = get_anyres_image_grid_shape(
            (height, width), config.image_grid_pinpoints, config.vision_config.image_size
        )
        return shape

    def _tiles(self, height: int, width: int) -> Tiles:
        """The parts of an image of this size (pixels)."""
        vision, side = self.config.vision_config, self._side
        down, across = self._shape(height, width)
        left = self._left(height, width)
        top, start = divmod(int(left[0, 0]), across * side)
        # The processor scales the picture into the canvas and pads it evenly on two sides. A tile
        # is taken to be covered by its cells: where patches leave a rest, they reach over it.
        canvas = (down * vision.image_size, across * vision.image_size)
        pitch = vision.image_size / side
        scale = min(canvas[0] / height, canvas[1] / width)
        edge = [
            (full - size * scale) / 2 for full, size in zip(canvas, (height, width), strict=True)
        ]
        area = (
            (start * pitch - edge[1]) / scale,
            (top * pitch - edge[0]) / scale,
            left.shape[1] * pitch / scale,
            left.shape[0] * pitch / scale,
        )
        patch = (vision.patch_size, vision.patch_size)
        whole = (0.0, 0.0, width * self._covered, height * self._covered)
        overview = Grid(1, side, side, patch, whole)
        rows, cols = self._joined(height, width, *left.shape)
        if (rows, cols) == left.shape:
            seams = _seams(side, top, rows), _seams(side, start, cols)
            return Tiles((overview, Grid(1, rows, cols, patch, area, seams)))
        # Resized, a cell may lie across two tiles.
        cell = (round(patch[0] * left.shape[0] / rows), round(patch[1] * left.shape[1] / cols))
        return Tiles((overview, Grid(1, rows, cols, cell, area)))

    def _joined(self, height: int, width: int, rows: int, cols: int) -> tuple[int, int]:
        """Rows and columns that the model makes of those that it cut out of all tiles of an image
        of this size (pixels): they stay."""
        return rows, cols


def _seams(side: int, first: int, length: int) -> tuple[int, ...]:
    """Where tiles of ``side`` begin among ``length`` rows (or columns) of the canvas, the first of
    which is its row ``first``."""
    return tuple(place - first for place in range(side, first + length, side) if place > first)
