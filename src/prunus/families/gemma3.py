"""Gemma 3: a SigLIP tower whose patches are averaged to a fixed number of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower
from prunus.families.towers.shapes import vit_shape
from prunus.families.towers.tiles import Squares
from prunus.grid import AnyGrid, Grid


class Gemma3(Family):
    """``Gemma3ForConditionalGeneration``. Every image is stretched to one size and has equally many
    placeholders, row by row, between tokens of their own that begin and end it. What pan-and-scan
    cuts out of a picture are images like any other, with text between.

    The core makes the masks, of which there is one for each type of layer: tokens of an image see
    each other in both directions, as far as a layer's window reaches.
    """

    name = "gemma3"
    model_types = ("gemma3",)
    summary = "Gemma 3: SigLIP tower, patches averaged to a fixed number of tokens"
    one_way = False
    no_merging = (
        "behind the tower the model averages squares of patches by their places, and would mix "
        "patches that were merged into others with their new neighbours"
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
        grid, vision = self.default_grid(), self.config.vision_config
        side = vision.image_size // vision.patch_size // grid.rows
        return Squares(self.core.vision_tower.encoder.layers, None, grid, side)

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower = vit_shape(config.vision_config)
        return tower, ProjectorShape(tower.width * config.get_text_config().hidden_size)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        pixels = call.get("pixel_values")
        return {} if pixels is None else {"image": [self.default_grid()] * len(pixels)}

    def default_grid(self) -> Grid:
        side: int = self.core.multi_modal_projector.tokens_per_side
        cell = self.config.vision_config.image_size // side
        return Grid(1, side, side, (cell, cell))
