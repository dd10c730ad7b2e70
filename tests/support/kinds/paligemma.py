"""PaliGemma 1 and 2."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH = 32, 8  # pixels of an image, and of a patch
WINDOW = 20
_IMAGE = "<image>"


def _paligemma(text: dict[str, Any]) -> tuple[Any, Any]:
    words = tokenizer("<|im_start|>", "<|im_end|>", image_token=_IMAGE)
    torch.manual_seed(0)
    config = PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={**TEXT, **text},
        projection_dim=TEXT["hidden_size"],
        hidden_size=TEXT["hidden_size"],
        vocab_size=TEXT["vocab_size"],
        image_token_index=words.image_token_id,
        tie_word_embeddings=False,
    )
    images = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    images.image_seq_length = (SIDE // PATCH) ** 2
    processor = PaliGemmaProcessor(images, words, chat_template=TEMPLATE.replace("IMAGE", _IMAGE))
    return finish(PaliGemmaForConditionalGeneration(config), [words.image_token_id]), processor


def paligemma() -> tuple[Any, Any]:
    """4 x 4 tokens, one for each patch, in a Gemma."""
    return _paligemma({"model_type": "gemma"})


def paligemma2() -> tuple[Any, Any]:
    """In a Gemma 2: every other layer has a window, shorter than most prompts."""
    text = {"model_type": "gemma2", "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
    return _paligemma(text)


PALIGEMMA = Kind("paligemma", _IMAGE, "", paligemma, pictured=True)
PALIGEMMA2 = Kind("paligemma2", _IMAGE, "", paligemma2, pictured=True)
