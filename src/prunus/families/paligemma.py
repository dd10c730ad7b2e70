"""PaliGemma 1 and 2: a SigLIP tower, and a prompt that is read in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower
from prunus.families.towers.shapes import vit_shape
from prunus.families.towers.vit import ViT
from prunus.grid import AnyGrid, Grid


class PaliGemma(Family):
    """``PaliGemmaForConditionalGeneration``. Every image is stretched to one size and has one
    placeholder for each patch, row by row, in front of the words.

    The core makes the mask: all of the prompt, images and words, is seen from all of it, and only
    the answer (type 1 in ``token_type_ids``, which the processor gives) is causal.
    """

    name = "paligemma"
    model_types = ("paligemma",)
    summary = "PaliGemma 1 and 2: SigLIP tower, a prompt that sees itself in both directions"
    one_way = False
    no_merging = (
        "the tower's last norm stands between its last block and the projector, and what merges in "
        "that block would have to be merged in front of the norm"
    )

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.vision_tower
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.multi_modal_projector
        return projector

    def tower_adapter(self) -> Tower:
        depth = len(self.core.vision_tower.encoder.layers)
        return ViT(self.tower, depth, 0, 0, lambda pixels: [self.default_grid()] * len(pixels))

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower = vit_shape(config.vision_config)
        return tower, ProjectorShape(tower.width * config.projection_dim)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        pixels = call.get("pixel_values")
        return {} if pixels is None else {"image": [self.default_grid()] * len(pixels)}

    def default_grid(self) -> Grid:
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        return Grid(1, side, side, (vision.patch_size, vision.patch_size))
