"""Aya Vision: tiles whose patches are joined four by four, each announced by a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.tiles import (
    canvas_by_aspect,
    check_tiles,
    runs,
    sizes_given,
    tile_by_tile,
    tiles_of,
    with_thumbnail,
)
from prunus.families.towers.base import Tower, read_block
from prunus.families.towers.shapes import vit_shape
from prunus.families.towers.tiles import Squares
from prunus.grid import AnyGrid, Grid


class AyaVision(Family):
    """``AyaVisionForConditionalGeneration``. The placeholders of a tile are one run, row by row;
    pixel shuffle joins squares of patches to one token. An image is its tiles in reading order and
    then a thumbnail, or one tile alone. In front of each run stands text that says which tile it
    is, the same for every thumbnail and every tile that is alone. So an image ends with a run that
    has in front of it what the last run of the row has.

    How tiles are arranged stands nowhere in what the processor gives; as with InternVL,
    ``image_sizes``, which the model takes and ignores, tell it.
    """

    name = "aya-vision"
    model_types = ("aya_vision",)
    summary = "Aya Vision: tiles and a thumbnail, pixel shuffle, sliding windows"
    takes_sizes = True
    no_merging = (
        "behind its tower the model joins squares of patches by their places in the tile (pixel "
        "shuffle), for which all of them have to be there"
    )

    def __init__(self, top: Any) -> None:
        super().__init__(top)
        strategy = getattr(self.config, "vision_feature_select_strategy", "full")
        layer = getattr(self.config, "vision_feature_layer", -1)
        kind = self.config.vision_config.model_type
        if strategy != "full" or not isinstance(layer, int) or kind != "siglip_vision_model":
            raise PrunusError(
                f"{self.name} with a {kind!r} vision tower, vision_feature_layer={layer!r} and "
                f"vision_feature_select_strategy={strategy!r} is not supported: pixel shuffle "
                "takes the patches of a tile for a square, of one layer of a SigLIP tower and with "
                "the strategy 'full'"
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
        return False  # the projector joins patches

    def tower_adapter(self) -> Tower:
        layer, blocks = getattr(self.config, "vision_feature_layer", -1), self._blocks
        read = read_block(layer, len(blocks))
        return Squares(blocks, None, self._tile, self.config.downsample_factor, read=read)

    def seen_whole(self, kind: str, grids: Sequence[AnyGrid]) -> list[Any]:
        return list(grids)  # the tower sees their tiles, in the order of the prompt

    @property
    def _blocks(self) -> Any:
        return self.core.vision_tower.encoder.layers

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower, width = vit_shape(config.vision_config), config.get_text_config().hidden_size
        inner = getattr(config, "alignment_intermediate_size", width)
        joined = tower.width * config.downsample_factor**2
        return tower, ProjectorShape(joined * inner + inner // 2 * width)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        ids, embeds = call.get("input_ids", call.get("inputs")), call.get("inputs_embeds")
        if not self.brings_features(call) or (ids is None and embeds is None):
            return {}
        words: Any = embeds if ids is None else ids
        holders = self.placeholders(ids, embeds)["image"]
        tile, counts = self._tile, []
        for found, own in zip(runs(holders), words, strict=True):
            check_tiles(found, tile)
            ends = self._ends(found, own)
            sums = [0]
            for end in ends:
                sums[-1] += 1
                if end:
                    sums.append(0)
            counts += sums[:-1]
        sizes = sizes_given(call.get("image_sizes"), len(counts))
        images = [
            with_thumbnail(tile, count, size, self._canvas)
            for count, size in zip(counts, sizes, strict=True)
        ]
        return {"image": images} if images else {}

    def cells(self, grid: AnyGrid) -> Tensor:
        return tile_by_tile(grid)

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        return tiles_of(grid)

    @property
    def _tile(self) -> Grid:
        vision = self.config.vision_config
        cell = self.config.downsample_factor * vision.patch_size
        side = vision.image_size // cell
        return Grid(1, side, side, (cell, cell))

    def _ends(self, tiles: Sequence[tuple[int, int]], words: Tensor) -> list[bool]:
        """For each of the ``tiles`` whether it is an image's last; ``words`` are the token ids
        ``[L]`` of the row, or its embeddings ``[L, D]``."""
        if not tiles:
            return []
        before = [words[start - 1] for start, _ in tiles if start]
        if len(before) < len(tiles):
            raise PrunusError(
                "the prompt begins with an image placeholder, without the text that says which "
                "tile it is: let the processor of this model write them"
            )
        return [torch.equal(own, before[-1]) for own in before]

    def _canvas(self, tiles: int, height: int, width: int) -> tuple[int, int]:
        """Down and across, how ``tiles`` of a picture of this size are arranged."""
        return canvas_by_aspect(tiles, self._tile, height, width)
