"""VideoLLaMA 3: images and videos of any size, each with a number of patches for a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prunus.errors import PrunusError
from prunus.families.qwen2_vl import Qwen2VL
from prunus.families.shapes import ProjectorShape, TowerShape, WindowedShape
from prunus.families.towers.base import Tower
from prunus.families.towers.video_llama import VideoLlama
from prunus.grid import AnyGrid, Grid


class VideoLlama3(Qwen2VL):
    """``VideoLlama3ForConditionalGeneration``. Rows of ``*_grid_thw`` count patches, and
    ``*_merge_sizes`` says how many of them a side a visual token is: one in images, two in videos,
    as the processor has it. A video is one run of placeholders per frame, with its time as text in
    front.

    The video processor can leave out tokens in which little moves (``video_compression_mask``):
    what is left is no grid, which is refused.
    """

    name = "video-llama-3"
    model_types = ("video_llama_3",)
    summary = "VideoLLaMA 3: images and videos of any size, timestamps"

    @property
    def tower(self) -> nn.Module:
        tower: nn.Module = self.core.vision_model
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = self.core.projector
        return projector

    def tower_adapter(self) -> Tower:
        return VideoLlama(
            self.tower, lambda call: self._sized("grid_thw", call["grid_thw"], call["merge_sizes"])
        )

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision, width = config.vision_config, config.get_text_config().hidden_size
        tower = WindowedShape(
            layers=vision.num_hidden_layers,
            width=vision.hidden_size,
            ffn=vision.intermediate_size,
            patch_inputs=vision.num_channels * vision.patch_size**2,
            merge=1,
            window=1,
            full=frozenset(range(vision.num_hidden_layers)),
            ffn_matrices=2,
            each=lambda grid: (grid.cell[0] // vision.patch_size) ** 2,
        )
        return tower, ProjectorShape(width * (vision.hidden_size + width), whole=True)

    def grids_of(self, call: Mapping[str, Any]) -> dict[str, list[AnyGrid]]:
        found: dict[str, list[AnyGrid]] = {}
        for kind in ("image", "video"):
            name, merges = f"{kind}_grid_thw", call.get(f"{kind}_merge_sizes")
            if call.get(name) is None:
                continue
            if merges is None:
                raise PrunusError(
                    f"{name} without {kind}_merge_sizes: give both, as the processor does"
                )
            found[kind] = [*self._sized(name, call[name], merges)]
        kept = call.get("video_compression_mask")
        if kept is not None and not bool(torch.as_tensor(kept).all()):
            mask = torch.as_tensor(kept)
            raise PrunusError(
                f"the processor left out {int((~mask).sum())} of {mask.numel()} tokens of the "
                "videos, in which little moves (video_compression_mask), and what is left is no "
                "grid: call it with use_token_compression=False"
            )
        return found

    def _sized(self, name: str, sizes: Any, merges: Any) -> list[Grid]:
        patch = self.config.vision_config.patch_size
        table, each = self._table(name, sizes), torch.as_tensor(merges).tolist()
        if len(each) != len(table):
            raise PrunusError(f"{len(each)} merge sizes for {len(table)} rows of {name}")
        return [
            Grid(frames, rows // merge, cols // merge, (merge * patch, merge * patch))
            for (frames, rows, cols), merge in zip(table, each, strict=True)
        ]
