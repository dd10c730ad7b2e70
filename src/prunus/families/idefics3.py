"""Idefics3 and SmolVLM: tiles with their row and column in front, and behind them the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.tiles import check_tiles, mosaic, runs, tile_by_tile, tiles_of
from prunus.families.towers.base import Tower
from prunus.families.towers.shapes import vit_shape
from prunus.families.towers.tiles import Squares
from prunus.grid import AnyGrid, Grid, Tiles

Run = tuple[int, int]


class Idefics3(Family):
    """``Idefics3ForConditionalGeneration`` and ``SmolVLMForConditionalGeneration``. Placeholders of
    an image are a run for each tile, in reading order, and a last one for the whole picture; an
    image that is not cut has only that. In front of each run stand two tokens of text: one that
    is always the same, and one that names row and column, or says that this is the whole. Rows of
    tiles end in a line break. That is how images and their arrangement are told from each other.

    A video of SmolVLM is whole pictures, with times as text between: each frame is an image of its
    own.
    """

    name = "idefics3"
    model_types = ("idefics3", "smolvlm")
    summary = "Idefics3 and SmolVLM: tiles and the whole picture, pixel shuffle"
    no_merging = ""

    @property
    def language_model(self) -> Any:
        return self.core.text_model

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.vision_model
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.connector
        return projector

    @property
    def reads_tower(self) -> bool:
        return False  # the connector joins patches

    def tower_adapter(self) -> Tower:
        tower = self.core.vision_model
        side = self.config.scale_factor
        return Squares(tower.encoder.layers, tower.post_layernorm, self._tile, side)

    def seen_whole(self, kind: str, grids: Sequence[AnyGrid]) -> list[Any]:
        return list(grids)  # the tower sees their tiles, in the order of the prompt

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower = replace(vit_shape(config.vision_config), merge=config.scale_factor)
        inputs = tower.width * config.scale_factor**2
        return tower, ProjectorShape(inputs * config.get_text_config().hidden_size, whole=True)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        ids = call.get("input_ids", call.get("inputs"))
        if not self.brings_features(call) or ids is None:
            return {}
        rows = zip(ids.tolist(), runs(ids == self.config.image_token_id), strict=True)
        found = [self._image(own) for row, places in rows for own in _images(row, places)]
        return {"image": found} if found else {}

    def cells(self, grid: AnyGrid) -> Tensor:
        return tile_by_tile(grid)

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        return tiles_of(grid)

    @property
    def _tile(self) -> Grid:
        vision, joined = self.config.vision_config, self.config.scale_factor
        side, cell = vision.image_size // vision.patch_size // joined, vision.patch_size * joined
        return Grid(1, side, side, (cell, cell))

    def _image(self, places: Sequence[Run]) -> AnyGrid:
        """Where the tokens of these runs lie, the last of which is the whole picture."""
        tile = self._tile
        check_tiles(places, tile)
        gaps = [there[0] - here[1] for here, there in pairwise(places)]
        if not gaps:
            return tile
        ends = [gap > _AHEAD for gap in gaps]  # of rows of tiles
        cols = ends.index(True) + 1 if any(ends) else len(ends)
        rows, rest = divmod(len(ends), cols)
        if rest or ends != ([False] * (cols - 1) + [True]) * rows:
            raise PrunusError(
                f"an image of {len(gaps)} tiles between which there are {gaps} tokens is not "
                f"arranged in rows: {_TAGS}"
            )
        return Tiles((mosaic(tile, rows, cols), tile))


_AHEAD = 2  # tokens in front of each run
_TAGS = (
    "in front of every run of image placeholders there must be two tokens, the second of which "
    "names a tile or the whole picture, and behind every row of tiles a line break; let the "
    "processor of this model write them, with a tokenizer that has these as single tokens"
)


def _images(row: Sequence[int], places: Sequence[Run]) -> list[list[Run]]:
    """The runs of a row of token ids by image: each ends with the picture as a whole.

    Raises:
        PrunusError: other tokens around runs than the processor writes.
    """
    if not places:
        return []
    start, end = places[-1]
    around = row[end] if end < len(row) else None  # behind a whole picture as in front of it
    whole = row[start - 1]
    found: list[list[Run]] = [[]]
    for first, behind in places:
        if first < _AHEAD or row[first - _AHEAD] != around:
            raise PrunusError(f"it is not clear which tiles are of one image: {_TAGS}")
        found[-1].append((first, behind))
        if row[first - 1] == whole:
            found.append([])
    return found[:-1]
