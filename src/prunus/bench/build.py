"""A model with random weights from its shape, and a prompt for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from prunus.bench.shapes import Shape


def build(
    shape: Shape, *, scale: float, dtype: torch.dtype, device: torch.device, attention: str
) -> Any:
    """The model in evaluation mode, its weights drawn on ``device``; answers never end early."""
    config = shape.config(scale)
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = AutoModelForImageTextToText.from_config(config, attn_implementation=attention)
    finally:
        torch.set_default_dtype(before)
    generation = model.generation_config
    generation.eos_token_id, generation.pad_token_id = None, 0
    return model.eval()


def prompt(
    model: Any, shape: Shape, *, batch: int, words: int, frames: int | None = None
) -> dict[str, Tensor]:
    """Inputs of ``batch`` prompts: one random picture each (a video of so many ``frames``, where
    the shape has one), and ``words`` random words behind it (a fifth of them before it), on the
    model's device and in its dtype."""
    maker = {
        "llava": _llava,
        "llava_next": _llava_next,
        "qwen2_5_vl": _qwen,
        "qwen3_vl": _qwen,
        "internvl": _internvl,
        "video_llava": _video_llava,
        "llava_onevision": _onevision,
    }
    torch.manual_seed(1)
    shown = shape if frames is None else replace(shape, frames=frames)
    visual, rest = maker[model.config.model_type](model, shown)
    before = words // 5
    ids = torch.cat(
        [
            torch.randint(100, 30000, (batch, before)),
            visual[None].expand(batch, -1),
            torch.randint(100, 30000, (batch, words - before)),
        ],
        dim=1,
    )
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name, value in rest.items():
        inputs[name] = value.repeat(batch, *[1] * (value.dim() - 1))
    if "image_grid_thw" in inputs:
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    weight = next(model.parameters())
    return {
        name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def _llava(model: Any, shape: Shape) -> tuple[Tensor, dict[str, Tensor]]:
    count = model.config.image_seq_length
    pixels = torch.randn(1, 3, *shape.size)
    return torch.full((count,), model.config.image_token_id), {"pixel_values": pixels}


def _llava_next(model: Any, shape: Shape) -> tuple[Tensor, dict[str, Tensor]]:
    """Four tiles and the whole picture; a newline behind every row of the stitched tiles."""
    side = model.config.vision_config.image_size
    grid = side // model.config.vision_config.patch_size
    rows, columns = (length // side * grid for length in shape.size)
    count = grid * grid + rows * (columns + 1)
    tiles = 1 + (rows // grid) * (columns // grid)
    return torch.full((count,), model.config.image_token_id), {
        "pixel_values": torch.randn(1, tiles, 3, side, side),
        "image_sizes": torch.tensor([shape.size]),
    }


def _qwen(model: Any, shape: Shape) -> tuple[Tensor, dict[str, Tensor]]:
    vision = model.config.vision_config
    rows, columns = (length // vision.patch_size for length in shape.size)
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    count = rows * columns // vision.spatial_merge_size**2
    ids = torch.full((count + 2,), model.config.image_token_id)
    ids[0], ids[-1] = model.config.vision_start_token_id, model.config.vision_end_token_id
    return ids, {
        "pixel_values": torch.randn(rows * columns, width),
        "image_grid_thw": torch.tensor([[1, rows, columns]]),
    }


def _internvl(model: Any, shape: Shape) -> tuple[Tensor, dict[str, Tensor]]:
    """Tiles, and a thumbnail behind them."""
    side = model.config.vision_config.image_size[0]
    tiles = 1 + (shape.size[0] // side) * (shape.size[1] // side)
    count = tiles * model.config.image_seq_length
    ids = torch.full((count,), model.config.image_token_id)
    return ids, {"pixel_values": torch.randn(tiles, 3, side, side)}


def _video_llava(model: Any, shape: Shape) -> tuple[Tensor, dict[str, Tensor]]:
    """A CLS token in front of the tokens of each frame."""
    patch = model.config.vision_config.patch_size
    count = shape.frames * (1 + (shape.size[0] // patch) * (shape.size[1] // patch))
    ids = torch.full((count,), model.config.video_token_id)
    return ids, {"pixel_values_videos": torch.randn(1, shape.frames, 3, *shape.size)}


def _onevision(model: Any, shape: Shape) -> tuple[Tensor, dict[str, Tensor]]:
    """Half as many rows and columns as the tower has, rounded up, and a newline behind the last
    frame."""
    side = -(-(shape.size[0] // model.config.vision_config.patch_size) // 2)
    ids = torch.full((shape.frames * side**2 + 1,), model.config.video_token_id)
    return ids, {"pixel_values_videos": torch.randn(1, shape.frames, 3, *shape.size)}
