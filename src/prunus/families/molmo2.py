"""Molmo 2: an overview, and behind it overlapping crops that are put together to one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import ProjectorShape, TowerShape
from prunus.grid import AnyGrid, Grid, Tiles


class Molmo2(Family):
    """``Molmo2ForConditionalGeneration``. The placeholders of an image are its overview, row by
    row, and then all of it at a higher resolution, row by row, however it was cut into crops; what
    ends a row is a token of its own. A video is a grid with a frame for each run of placeholders;
    they have the token of images, but a frame's begin has one of its own.

    Each placeholder pools a square of patches, which the processor names by numbers that count
    through all pictures of a call (``image_token_pooling``). Features are added to the
    placeholder's embedding. The core makes the mask: everything that belongs to pictures, rows'
    ends included, is seen from all of it, in both directions.
    """

    name = "molmo2"
    model_types = ("molmo2",)
    summary = "Molmo 2: an overview and overlapping crops, videos, pictures that see each other"
    no_merging = (
        "behind its tower the model pools patches by their numbers, of several blocks side by "
        "side, for which all of them have to be there"
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

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        raise PrunusError(
            "cannot count the cost of molmo2: how many patches a token pools is the processor's to "
            "say, and stands nowhere in the model's configuration"
        )

    def placeholders(self, input_ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        config = self.config
        patches = self.holds(config.image_patch_id, input_ids, embeds)
        steps = torch.arange(patches.shape[1], device=patches.device)

        def latest(*tokens: int) -> Tensor:
            begins = torch.stack([self.holds(token, input_ids, embeds) for token in tokens]).any(0)
            return torch.where(begins, steps, -1).cummax(1).values

        frames = latest(config.frame_start_token_id)
        framed = frames > latest(config.image_start_token_id, config.low_res_image_start_token_id)
        return {"image": patches & ~framed, "video": patches & framed}

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        found: dict[str, list[AnyGrid]] = {}
        if call.get("image_grids") is not None:
            cell = self._cell(call.get("image_token_pooling"))
            found["image"] = [
                Tiles((Grid(1, low, wide, cell), Grid(1, rows, cols, cell)))
                for low, wide, rows, cols in call["image_grids"].tolist()
            ]
        if call.get("video_grids") is not None:
            cell = self._cell(call.get("video_token_pooling"))
            sizes = call["video_grids"].tolist()
            found["video"] = [Grid(frames, rows, cols, cell) for frames, rows, cols in sizes]
        return found

    def _cell(self, pooling: Tensor | None) -> tuple[int, int]:
        """Pixels of a token, which pools as many patches as a row of ``pooling`` has."""
        side = 2 if pooling is None else round(float(pooling.shape[1]) ** 0.5)
        return side * self.config.vision_config.patch_size, side * (
            self.config.vision_config.patch_size
        )

    def behind(
        self, inputs: Mapping[str, Tensor], before: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        shifted = dict(inputs)
        for pixels, pooling in (
            ("pixel_values", "image_token_pooling"),
            ("pixel_values_videos", "video_token_pooling"),
        ):
            if pooling in inputs:
                seen = [one[pixels].flatten(0, -2).shape[0] for one in before if pixels in one]
                own = inputs[pooling]
                shifted[pooling] = torch.where(own >= 0, own + sum(seen), own)
        return shifted
