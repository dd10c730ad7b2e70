"""DeepSeek-VL: a SigLIP tower over the picture padded to a square, and two linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower
from prunus.families.towers.shapes import mlp_macs, vit_shape
from prunus.families.towers.vit import ViT
from prunus.grid import AnyGrid, Grid


class DeepseekVL(Family):
    """``DeepseekVLForConditionalGeneration``: one grid per image, row by row, without marks. Cells
    lie in the picture as the model sees it, scaled and padded to a square: how large it was, the
    call does not say. (DeepSeek-VL with a second tower, ``deepseek_vl_hybrid``, is another model.)
    """

    name = "deepseek-vl"
    model_types = ("deepseek_vl",)
    summary = "DeepSeek-VL: SigLIP tower, Llama-like language model"
    no_merging = ""

    def __init__(self, top: Any) -> None:
        super().__init__(top)
        tower = self.config.vision_config.model_type
        if tower != "siglip_vision_model":
            raise PrunusError(
                f"DeepSeek-VL with a {tower!r} vision tower is not supported: its features must be "
                "one for each patch, as those of a 'siglip_vision_model'"
            )

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.vision_model
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.aligner
        return projector

    def tower_adapter(self) -> Tower:
        tower = self.core.vision_model
        depth = self.config.vision_config.num_hidden_layers
        return ViT(tower, depth, 0, 0, self._grids, tower.post_layernorm)

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower = vit_shape(config.vision_config)
        return tower, ProjectorShape(mlp_macs(config), tower.tokens)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        pixels = call.get("pixel_values")
        return {} if pixels is None else {"image": [*self._grids(pixels)]}

    def _grids(self, pixels: Tensor) -> list[Grid]:
        return [self.default_grid()] * len(pixels)

    def default_grid(self) -> Grid:
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        return Grid(1, side, side, (vision.patch_size, vision.patch_size))
