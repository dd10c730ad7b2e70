"""Kimi-K2.5."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import (
    Kimi_K25Config,
    Kimi_K25ForConditionalGeneration,
    Kimi_K25ImageProcessor,
    Kimi_K25Processor,
    Kimi_K25VideoProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

PATCH, CELL = 4, 8  # pixels: a patch, and the 2 x 2 of them that are one visual token
_IMAGE, _VIDEO = "<|media_pad|>", "<|kimi_k25_video_placeholder|>"
_SPECIAL = ("<|media_begin|>", "<|media_content|>", "<|media_end|>", _IMAGE, _VIDEO)


def kimi_k25() -> tuple[Any, Any]:
    """Low-rank keys and values, four experts behind the first layer; clips of four frames."""
    words = tokenizer(*_SPECIAL, "<|im_start|>", "<|im_end|>")
    image, video = words.convert_tokens_to_ids([_IMAGE, _VIDEO])
    torch.manual_seed(0)
    text = {
        **TEXT,
        "model_type": "deepseek_v3",
        "num_key_value_heads": 4,
        "head_dim": 8,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
    }
    config = Kimi_K25Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "patch_size": PATCH,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
            "initializer_range": 0.15,
        },
        text_config=text,
        projection_hidden_size=32,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=words.convert_tokens_to_ids("<|media_begin|>"),
        vision_end_token_id=words.convert_tokens_to_ids("<|media_end|>"),
        tie_word_embeddings=False,
    )
    sizes = {"patch_size": PATCH, "merge_size": 2, "size": {"max_height": 24, "max_width": 24}}
    processor = Kimi_K25Processor(
        image_processor=Kimi_K25ImageProcessor(**sizes),
        tokenizer=words,
        video_processor=Kimi_K25VideoProcessor(**sizes),
        chat_template=TEMPLATE.replace("IMAGE", f"<|media_begin|>{_IMAGE}<|media_end|>").replace(
            "VIDEO", _VIDEO
        ),
    )
    return finish(Kimi_K25ForConditionalGeneration(config), [image, video]), processor


def runs_of_row(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Every run of placeholders is an input of its own, a clip of a video as well."""
    names = {model.config.image_token_id: "image", model.config.video_token_id: "video"}
    return [
        (names[token], [place for place, _ in run])
        for token, run in groupby(enumerate(row), key=lambda item: item[1])
        if token in names
    ]


KIMI_K25 = Kind(
    "kimi-k2.5",
    f"<|media_begin|>{_IMAGE}<|media_end|>",
    _VIDEO,
    kimi_k25,
    runs_of_row,
    timed=True,
)
