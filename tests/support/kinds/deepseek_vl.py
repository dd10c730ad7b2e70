"""DeepSeek-VL."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH = 32, 8  # pixels of an image, and of a patch
_IMAGE = "<image_placeholder>"


def deepseek_vl() -> tuple[Any, Any]:
    """4 x 4 tokens, all of three blocks of the tower read."""
    words = tokenizer("<|im_start|>", "<|im_end|>", image_token=_IMAGE)
    token = words.convert_tokens_to_ids(_IMAGE)
    torch.manual_seed(0)
    config = DeepseekVLConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        text_config={"model_type": "llama", **TEXT},
        image_token_id=token,
    )
    processor = DeepseekVLProcessor(
        DeepseekVLImageProcessor(size={"height": SIDE, "width": SIDE}),
        words,
        num_image_tokens=(SIDE // PATCH) ** 2,
        chat_template=TEMPLATE.replace("IMAGE", _IMAGE),
    )
    model = DeepseekVLForConditionalGeneration(config)
    with torch.no_grad():  # features as large as words
        model.model.aligner.linear2.weight *= 8
    return finish(model, [token]), processor


DEEPSEEK_VL = Kind("deepseek-vl", _IMAGE, "", deepseek_vl)
