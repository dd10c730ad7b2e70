"""LLaVA-1.5 with a CLIP or a SigLIP tower."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipImageProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH = 32, 8  # pixels of an image, and of a patch


def _llava(vision: dict[str, Any], strategy: str, images: Any) -> tuple[Any, Any]:
    words = tokenizer("<image>", "<|im_start|>", "<|im_end|>")
    token = words.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            **vision,
        },
        text_config={"model_type": "llama", **TEXT},
        image_token_index=token,
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy=strategy,
    )
    processor = LlavaProcessor(
        images,
        words,
        patch_size=PATCH,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1 if strategy == "default" else 0,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return finish(LlavaForConditionalGeneration(config), [token]), processor


def llava_clip() -> tuple[Any, Any]:
    """The CLS token is cut off behind the tower."""
    images = CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    return _llava({"model_type": "clip_vision_model", "projection_dim": 32}, "default", images)


def llava_siglip() -> tuple[Any, Any]:
    """A tower without CLS token."""
    images = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    return _llava({"model_type": "siglip_vision_model"}, "full", images)


LLAVA_CLIP = Kind("llava-clip", "<image>", "", llava_clip)
LLAVA_SIGLIP = Kind("llava-siglip", "<image>", "", llava_siglip)
