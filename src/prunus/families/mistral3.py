"""Mistral 3: a Pixtral tower, and a projector that merges squares of its patches."""

from __future__ import annotations

from typing import Any

from prunus.families.pixtral import PixtralFamily
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.shapes import pixtral_shape


class Mistral3(PixtralFamily):
    """``Mistral3ForConditionalGeneration``: one run of placeholders for each row of an image,
    ``[IMG_BREAK]`` between and ``[IMG_END]`` behind. A visual token is a square of
    ``spatial_merge_size`` patches a side. The patch merger takes images apart by their sizes, so
    that it needs all of their patches, whatever was merged in the tower.
    """

    name = "mistral3"
    model_types = ("mistral3",)
    summary = "Mistral Small 3.1 and later: images of any size, Pixtral tower with a patch merger"
    whole = True

    @property
    def merge(self) -> int:
        return int(self.config.spatial_merge_size)

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower = pixtral_shape(config.vision_config, config.spatial_merge_size)
        text, read = config.get_text_config().hidden_size, config.vision_feature_layer
        joined = tower.width * tower.merge**2 * tower.width
        inputs = tower.width * (1 if isinstance(read, int) else len(read))
        return tower, ProjectorShape(joined + text * (inputs + text), whole=True)
