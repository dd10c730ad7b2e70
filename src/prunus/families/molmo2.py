"""Molmo 2: an overview, and behind it overlapping crops that are put together to one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.base import Family
from prunus.families.shapes import EncoderShape, Pass, ProjectorShape, TowerShape
from prunus.grid import AnyGrid, Grid, Tiles


@dataclass(frozen=True)
class Cropped(Tiles):
    """Cut into so many ``crops``, which overlap, the overview among them; 0: not known."""

    crops: int = 0


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
    one_way = False
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
        """A token asks the patches that it pools, which are as many as its cell has."""
        vision, adapter = config.vision_config, config.adapter_config
        for one in (vision, adapter):
            inner = one.num_attention_heads * one.head_dim
            if not inner == one.num_key_value_heads * one.head_dim == one.hidden_size:
                raise PrunusError(
                    f"cannot count the cost of {cls.name}: heads of its {one.model_type} have "
                    f"{inner} channels, or keys others, and not {one.hidden_size} as its states do"
                )
        height, width = (side // vision.patch_size for side in vision.image_size)
        tower = EncoderShape(
            layers=vision.num_hidden_layers,
            width=vision.hidden_size,
            ffn=vision.intermediate_size,
            patches=height * width,
            extra=0,
            patch_inputs=vision.num_channels * vision.patch_size**2,
        )
        inner, given = adapter.hidden_size, len(adapter.vision_feature_layer) * vision.hidden_size
        token = given * inner + inner * inner  # the query, and what it is told
        token += adapter.intermediate_size * (2 * inner + adapter.text_hidden_size)
        patch = 2 * given * inner + 2 * inner  # key and value, weighed

        def made(one: Grid) -> int:
            return one.made if isinstance(one, Pass) else one.size

        def pooled(one: Grid) -> int:
            each: int = (one.cell[0] // vision.patch_size) * (one.cell[1] // vision.patch_size)
            return made(one) * each * int(patch)

        return tower, ProjectorShape(token, made, beside=pooled)

    def tower_grids(self, grid: AnyGrid) -> Sequence[Grid]:
        crops = grid.crops if isinstance(grid, Cropped) else grid.frames
        if not crops:
            raise PrunusError(
                f"cannot count the cost of {self.name}: the call does not say into how many crops "
                "an image is cut (image_num_crops, which the processor gives)"
            )
        vision = self.config.vision_config
        height, width = (side // vision.patch_size for side in vision.image_size)
        made = [grid.size // grid.frames] * crops
        if isinstance(grid, Cropped):  # crops overlap: whose tokens are whose makes no difference
            made = [grid.size, *[0] * (crops - 1)]
        return [Pass(1, height, width, grid.parts[0].cell, made=own) for own in made]

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
            sizes, crops = call["image_grids"].tolist(), call.get("image_num_crops")
            counts = [0] * len(sizes) if crops is None else crops.tolist()
            found["image"] = [
                Cropped((Grid(1, low, wide, cell), Grid(1, rows, cols, cell)), crops=count)
                for (low, wide, rows, cols), count in zip(sizes, counts, strict=True)
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
