"""Models with a Pixtral tower: images of any size, one run of placeholders for each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.families.towers.base import Tower, read_block
from prunus.families.towers.pixtral import Pixtral, image_sizes
from prunus.families.towers.shapes import pixtral_shape
from prunus.grid import AnyGrid, Grid


class PixtralFamily(Family):
    """What families with this tower share. The placeholders of an image are its rows, from above;
    between them stand ``[IMG_BREAK]``, and ``[IMG_END]`` behind the last, which have ids of their
    own and are text.
    """

    no_merging = ""
    whole = False
    """Whether the projector goes by the size of each image."""

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.vision_tower
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.multi_modal_projector
        return projector

    @property
    def merge(self) -> int:
        """Patches along a side of a visual token."""
        return 1

    @property
    def reads_tower(self) -> bool:
        return False  # all images are one row of the tower's output

    def tower_adapter(self) -> Tower:
        depth = self.config.vision_config.num_hidden_layers
        read = read_block(self.config.vision_feature_layer, depth)
        return Pixtral(self.tower, read, self.merge, self.whole, self._grids)

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        tower = pixtral_shape(config.vision_config, 1)
        width = config.get_text_config().hidden_size
        return tower, ProjectorShape(width * (tower.width + width))

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        return {"image": self.holds(self.config.image_token_id, input_ids, embeds)}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        brings = any(call.get(name) is not None for name in ("pixel_values", "image_sizes"))
        return {"image": [*self._grids(call)]} if brings else {}

    def _grids(self, call: Mapping[str, Any]) -> list[Grid]:
        cell = self.config.vision_config.patch_size * self.merge
        return [
            Grid(1, height // cell, width // cell, (cell, cell))
            for height, width in image_sizes(call)
        ]


class LlavaPixtral(PixtralFamily):
    """``LlavaForConditionalGeneration`` with a Pixtral tower: a visual token is a patch."""

    name = "llava"

    def __init__(self, top: Any) -> None:
        super().__init__(top)
        strategy = self.config.vision_feature_select_strategy
        if strategy != "full":
            raise PrunusError(
                f"vision_feature_select_strategy={strategy!r} takes the first patch of the first "
                "image away, which is no CLS token in a Pixtral tower: set it to 'full'"
            )
