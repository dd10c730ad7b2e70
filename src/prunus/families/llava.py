"""LLaVA-1.5 and models of its architecture (CLIP or SigLIP tower, one grid per image; with a
Pixtral tower, images of any size)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.pixtral import LlavaPixtral
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower, read_block
from prunus.families.towers.shapes import mlp_macs, vit_shape
from prunus.families.towers.vit import ViT
from prunus.grid import AnyGrid, Grid

_TOWERS = ("clip_vision_model", "siglip_vision_model")
_PIXTRAL = "pixtral"


class Llava(Family):
    """``LlavaForConditionalGeneration``: placeholders of one image are grid tokens in row-major
    order, behind the CLS token if ``vision_feature_select_strategy`` is "full" and there is one.
    With a Pixtral tower it is :class:`~prunus.families.pixtral.LlavaPixtral`."""

    name = "llava"
    model_types = ("llava",)
    summary = "LLaVA-1.5: CLIP, SigLIP or Pixtral tower, Llama-like language model"
    no_merging = ""

    @classmethod
    def of(cls, top: Any) -> Family:
        return LlavaPixtral(top) if _has_pixtral(top.config) else cls(top)

    def __init__(self, top: Any) -> None:
        super().__init__(top)
        tower = self.config.vision_config.model_type
        if tower not in _TOWERS:
            raise PrunusError(
                f"LLaVA with a {tower!r} vision tower is not supported: use one of "
                f"{', '.join(_TOWERS)} or {_PIXTRAL}"
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
        read = read_block(self.config.vision_feature_layer, depth)
        has_cls = self.config.vision_config.model_type == "clip_vision_model"
        full = self.config.vision_feature_select_strategy == "full"
        if not has_cls and not full:
            raise PrunusError(
                "vision_feature_select_strategy='default' takes the first token away, which is no "
                "CLS token in this tower: set it to 'full'"
            )
        return ViT(self.tower, read, int(has_cls), int(has_cls and full), self._grids)

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        return (LlavaPixtral.tower_shapes if _has_pixtral(config) else vit_with_mlp)(config)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        pixels = call.get("pixel_values")
        return {} if pixels is None else {"image": [*self._grids(pixels)]}

    def _grids(self, pixels: Tensor) -> list[Grid]:
        images, _, height, width = pixels.shape
        patch = self.config.vision_config.patch_size
        return [Grid(1, height // patch, width // patch, (patch, patch))] * images

    def default_grid(self) -> Grid | None:
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        return Grid(1, side, side, (vision.patch_size, vision.patch_size))

    def cells(self, grid: AnyGrid) -> Tensor:
        has_cls = self.config.vision_config.model_type == "clip_vision_model"
        full = self.config.vision_feature_select_strategy == "full"
        cells = super().cells(grid)
        return F.pad(cells, (1, 0), value=-1) if has_cls and full else cells


def _has_pixtral(config: Any) -> bool:
    return bool(config.vision_config.model_type == _PIXTRAL)


def vit_with_mlp(config: Any) -> tuple[TowerShape, ProjectorShape]:
    """Sizes of a CLIP or SigLIP tower and two linear layers behind it."""
    tower = vit_shape(config.vision_config)
    # "default" cuts off the first token, whether or not the tower has a CLS token
    dropped = 1 if getattr(config, "vision_feature_select_strategy", "full") == "default" else 0
    return tower, ProjectorShape(mlp_macs(config), tower.tokens - dropped)
