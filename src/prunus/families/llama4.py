"""Llama 4: tiles whose patches are joined four by four, separated by tokens, and an overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import EncoderShape, ProjectorShape, TowerShape
from prunus.families.tiles import check_tiles, mosaic, runs, tile_by_tile, tiles_of
from prunus.grid import AnyGrid, Grid, Tiles


class Llama4(Family):
    """``Llama4ForConditionalGeneration``. The placeholders of an image are those of each tile, row
    by row, tiles in reading order and each followed by a separator, and then those of the overview,
    if there is more than one tile. Separators have ids of their own, and are text: where a row of
    tiles ends is told by the one in front of the overview.

    Large pictures are padded at their right and lower edge by the processor, which does not say how
    far: cells lie in the picture as it is then, and nobody looks for objects of a scene in them.

    The model itself puts features into their places: there is no module around them and the
    language model. Its layers scale queries by their place in the sequence in very long prompts,
    which are refused (``attn_temperature_tuning``).
    """

    name = "llama4"
    model_types = ("llama4",)
    summary = "Llama 4: tiles and an overview, pixel shuffle, chunked attention"
    no_merging = (
        "in its tower the model joins squares of patches by their places in the tile (pixel "
        "shuffle), for which all of them have to be there"
    )

    @property
    def core(self) -> Any:
        return self.top

    @property
    def language_model(self) -> Any:
        return self.top.language_model.model

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.top.vision_model
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.top.multi_modal_projector
        return projector

    @property
    def reads_tower(self) -> bool:
        return False  # all tiles of a call are one row in front of the projector

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision, width = config.vision_config, config.text_config.hidden_size
        side = vision.image_size // vision.patch_size
        tower = EncoderShape(
            layers=vision.num_hidden_layers,
            width=vision.hidden_size,
            ffn=vision.intermediate_size,
            patches=side**2,
            extra=1,
            patch_inputs=vision.num_channels * vision.patch_size**2,
        )
        joined, inner = vision.intermediate_size, vision.projector_input_dim
        given = vision.projector_output_dim
        return tower, ProjectorShape(joined * inner + given**2 + vision.vision_output_dim * width)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        ids, embeds = call.get("input_ids", call.get("inputs")), call.get("inputs_embeds")
        if not self.brings_features(call) or (ids is None and embeds is None):
            return {}
        holders = self.placeholders(ids, embeds)["image"]
        ends = self.holds(self.config.eoi_token_id, ids, embeds)
        found = []
        given: Any = embeds if ids is None else ids
        for row, (words, own) in enumerate(zip(given, runs(holders), strict=True)):
            tiles: list[tuple[int, int]] = []
            for tile in own:
                tiles.append(tile)
                if tile[1] < len(words) and bool(ends[row, tile[1]]):
                    found.append(self._image(words, tiles))
                    tiles = []
            if tiles:
                raise PrunusError(
                    f"the image placeholders at positions {tiles[0][0]} to {tiles[-1][1] - 1} are "
                    "not followed by the token that ends an image: let the processor of this model "
                    "write them"
                )
        return {"image": found} if found else {}

    def cells(self, grid: AnyGrid) -> Tensor:
        return tile_by_tile(grid)

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        return tiles_of(grid)

    @property
    def _tile(self) -> Grid:
        vision = self.config.vision_config
        cell = round(1 / vision.pixel_shuffle_ratio) * vision.patch_size
        side = vision.image_size // cell
        return Grid(1, side, side, (cell, cell))

    def _image(self, words: Tensor, tiles: Sequence[tuple[int, int]]) -> AnyGrid:
        """Where the tokens of an image lie, whose ``tiles`` begin and end at these positions of a
        row; ``words`` are its token ids ``[L]``, or embeddings ``[L, D]``."""
        tile = self._tile
        check_tiles(tiles, tile)
        if len(tiles) == 1:
            return tile
        behind = [words[stop] for _, stop in tiles[:-1]]
        rows = sum(torch.equal(one, behind[-1]) for one in behind)
        cols, rest = divmod(len(behind), rows)
        if rest:
            raise PrunusError(
                f"{len(behind)} tiles in {rows} rows are no rectangle: let the processor of this "
                "model write the separators"
            )
        return Tiles((mosaic(tile, rows, cols), tile), padded=True)
