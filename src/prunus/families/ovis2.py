"""Ovis2: a thumbnail and tiles, whose features are sums of a table of visual words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape, WindowedShape
from prunus.families.tiles import check_tiles, mosaic, runs, tile_by_tile, tiles_of
from prunus.grid import AnyGrid, Grid, Tiles

Run = tuple[int, int]


class Ovis2(Family):
    """``Ovis2ForConditionalGeneration``. The placeholders of an image are a run for the whole
    picture and then, if it is cut, one for each tile in reading order. Between them stands one
    token each, a visual indicator (start, grid, column, row, end), which is text here and stays.
    Column and row say how tiles are arranged; two images are never one token apart.
    """

    name = "ovis2"
    model_types = ("ovis2",)
    summary = "Ovis2: a thumbnail and tiles, a table of visual words"
    no_merging = (
        "its tower turns patches, joined in squares by their places, into probabilities of visual "
        "words, and merged tokens would be words of nothing in the picture"
    )

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.vision_tower
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.visual_embeddings_table
        return projector

    @property
    def reads_tower(self) -> bool:
        return False  # what enters the table are probabilities, and the indicators' numbers

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        if side % vision.hidden_stride:
            raise PrunusError(
                f"cannot count the cost of {cls.name} where {side} patches a side are padded to "
                f"squares of {vision.hidden_stride}"
            )
        tower = WindowedShape(
            layers=vision.num_hidden_layers,
            width=vision.hidden_size,
            ffn=vision.intermediate_size,
            patch_inputs=vision.num_channels * vision.patch_size**2,
            merge=vision.hidden_stride,
            window=1,
            full=frozenset(range(vision.num_hidden_layers)),
        )
        words = vision.vocab_size - vision.num_visual_indicator_tokens
        head = vision.hidden_size * vision.hidden_stride**2 * words
        return tower, ProjectorShape(head + vision.vocab_size * config.hidden_size)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        ids, embeds = call.get("input_ids", call.get("inputs")), call.get("inputs_embeds")
        if not self.brings_features(call) or (ids is None and embeds is None):
            return {}
        rows = runs(self.placeholders(ids, embeds)["image"])
        _, grid, column, row, _ = self.config.visual_indicator_token_ids
        marks = [self.holds(token, ids, embeds) for token in (grid, column, row)]
        between = torch.stack(marks, dim=-1).tolist()
        found = [
            self._image(own, [between[number][end] for _, end in own[:-1]])
            for number, line in enumerate(rows)
            for own in _images(line)
        ]
        return {"image": found} if found else {}

    def cells(self, grid: AnyGrid) -> Tensor:
        return tile_by_tile(grid)

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        return tiles_of(grid)

    def _image(self, places: Sequence[Run], between: Sequence[Sequence[bool]]) -> AnyGrid:
        """Where the tokens of these runs lie, the first of which is the whole picture; ``between``
        them stands the indicator for the grid, for another column, or for another row."""
        vision = self.config.vision_config
        side = -(-vision.image_size // vision.patch_size // vision.hidden_stride)
        tile = Grid(1, side, side, (vision.patch_size * vision.hidden_stride,) * 2)
        check_tiles(places, tile, _WHAT)
        if not between:
            return tile
        ahead, *rest = between
        rows = sum(row for _, _, row in rest) + 1
        cols, over = divmod(len(places) - 1, rows)
        wanted = ([[False, True, False]] * (cols - 1) + [[False, False, True]]) * rows
        if over or ahead != [True, False, False] or list(rest) != wanted[:-1]:
            raise PrunusError(
                f"an image of {len(places) - 1} tiles is not arranged in rows of equal length by "
                f"the indicators between them: {_WRITTEN}"
            )
        return Tiles((tile, mosaic(tile, rows, cols)))


_WHAT = "placeholders and indicators"
_WRITTEN = f"let the processor of this model write {_WHAT}"


def _images(places: Sequence[Run]) -> list[list[Run]]:
    """The runs of a row by image."""
    found = [[place] for place in places[:1]]
    for here, there in pairwise(places):
        if there[0] - here[1] == 1:
            found[-1].append(there)
        else:
            found.append([there])
    return found
