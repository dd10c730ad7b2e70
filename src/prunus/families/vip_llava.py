"""ViP-LLaVA: LLaVA-1.5 whose projector reads several blocks of the tower side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower, read_block
from prunus.families.towers.shapes import vit_shape
from prunus.families.towers.vit import ViT
from prunus.grid import AnyGrid, Grid


class VipLlava(Family):
    """``VipLlavaForConditionalGeneration``: one grid per image, row by row, no CLS token."""

    name = "vip-llava"
    model_types = ("vipllava",)
    summary = "ViP-LLaVA: CLIP tower, features of several of its blocks"
    no_merging = (
        "its projector reads several blocks of the tower, which have different numbers of tokens "
        "when a method merges inside it"
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
        layers, depth = block_layers(self.config), len(self.core.vision_tower.encoder.layers)
        read = max(read_block(layer, depth) for layer in layers)
        grid, several = self.default_grid(), len(layers) > 1
        return ViT(self.tower, read, 1, 0, lambda p: [grid] * len(p), beside=not several)

    @property
    def feature_width(self) -> int:
        return blocks_read(self.config) * int(self.config.vision_config.hidden_size)

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        pixels = call.get("pixel_values")
        return {} if pixels is None else {"image": [self.default_grid()] * len(pixels)}

    def default_grid(self) -> Grid:
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        return Grid(1, side, side, (vision.patch_size, vision.patch_size))

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower, width = vit_shape(config.vision_config), config.get_text_config().hidden_size
        inputs = tower.width * blocks_read(config)
        return tower, ProjectorShape(width * (inputs + width), tower.patches)


def blocks_read(config: Any) -> int:
    """How many blocks of the tower the projector reads."""
    return len(block_layers(config))


def block_layers(config: Any) -> Sequence[int]:
    """Numbers of the hidden states of the tower that the projector reads."""
    name = "vision_feature_layer" if hasattr(config, "vision_feature_layer") else None
    layers = getattr(config, name or "vision_feature_layers")  # as transformers 5.19 calls it
    return [layers] if isinstance(layers, int) else layers
