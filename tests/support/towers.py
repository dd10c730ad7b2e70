"""LLaVAs whose towers have some more blocks, and prompts for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.llava import IMAGE, Prompts, llava_with
from tests.support.models import Case


def deep(kind: str = "clip", blocks: int = 7, depth: int = 2, **options: Any) -> Case:
    """A LLaVA whose tower has some more blocks (all but one are read) and 36 tokens; its language
    model is shallow."""
    from transformers import CLIPVisionConfig, SiglipVisionConfig

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": blocks,
        "num_attention_heads": 4,
        "image_size": 48,
        "patch_size": 8,
        "initializer_range": 0.3,
    }
    if kind == "clip":
        vision: Any = CLIPVisionConfig(**sizes, projection_dim=32)
        model = llava_with(vision, depth, vision_feature_select_strategy="default", **options)
    else:
        model = llava_with(
            SiglipVisionConfig(**sizes), depth, vision_feature_select_strategy="full", **options
        )
    return Case(kind, model, Prompts(0))


def prompt(images: int = 2, seed: int = 3) -> dict[str, Tensor]:
    ids = torch.tensor([[1, 5] + [IMAGE] * 36 * images + [7, 8, 9]])
    pixels = torch.randn(images, 3, 48, 48, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}
