"""ViP-LLaVA."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CLIPImageProcessor,
    LlavaProcessor,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH = 64, 8  # pixels of an image, and of a patch


def vip_llava() -> tuple[Any, Any]:
    """Features of two of four blocks of the tower, 8 x 8 tokens."""
    words = tokenizer("<image>", "<|im_start|>", "<|im_end|>")
    token = words.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    config = VipLlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "projection_dim": 32,
        },
        text_config={"model_type": "llama", **TEXT},
        vision_feature_layers=[-2, 1],
        image_token_index=token,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(
            size={"height": SIDE, "width": SIDE}, do_center_crop=False, do_convert_rgb=True
        ),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return finish(VipLlavaForConditionalGeneration(config), [token]), processor


VIP_LLAVA = Kind("vip-llava", "<image>", "", vip_llava)
