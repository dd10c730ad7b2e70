"""Tiny random Gemma 3, whose windows are shorter than most prompts."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH, POOLED = 64, 8, 2  # pixels of an image and of a patch; patches along a token's side
WINDOW = 20
LAYERS = ["sliding_attention", "sliding_attention", "full_attention"] * 2
_BEGIN, _END, _SOFT = "<start_of_image>", "<end_of_image>", "<image_soft_token>"


def gemma3(window: int = WINDOW) -> tuple[Any, Any]:
    """4 x 4 tokens, each an average of 2 x 2 patches; the third of five layers is full, so that
    windows are before it and behind it."""
    words = tokenizer(
        "<|im_start|>", "<|im_end|>", boi_token=_BEGIN, eoi_token=_END, image_token=_SOFT
    )
    torch.manual_seed(0)
    config = Gemma3Config(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        text_config={
            **TEXT,
            "query_pre_attn_scalar": 16,
            "sliding_window": window,
            "layer_types": LAYERS[: TEXT["num_hidden_layers"]],
        },
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
        image_token_index=words.image_token_id,
        mm_tokens_per_image=(SIDE // PATCH // POOLED) ** 2,
        tie_word_embeddings=False,
    )
    model = Gemma3ForConditionalGeneration(config)
    # As it is made, it lets nothing of a picture through.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}),
        words,
        image_seq_length=config.mm_tokens_per_image,
        chat_template=TEMPLATE.replace("IMAGE", _BEGIN),
    )
    return finish(model, [words.image_token_id]), processor


GEMMA3 = Kind("gemma3", _BEGIN, "", gemma3, nested=True)
