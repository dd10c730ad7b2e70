"""Tiny random Gemma 4: small, with inputs by layer and shared keys; and large, with experts, images
that see themselves in both directions, and keys that are values."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
)
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

PATCH, POOLED = 4, 2  # pixels of a patch; patches along a token's side
WINDOW = 24
_SLIDING, _FULL = "sliding_attention", "full_attention"
_NAMED = {
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "image_token": "<|image|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "audio_token": "<|audio|>",
}
_VIDEO = "<|video|>"


def gemma4() -> tuple[Any, Any]:
    """The last two of five layers read the keys of the two before them."""
    return _built(
        layer_types=[_SLIDING, _SLIDING, _FULL, _SLIDING, _FULL],
        num_kv_shared_layers=2,
        use_double_wide_mlp=True,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=512,
    )


def gemma4_large() -> tuple[Any, Any]:
    """No inputs by layer; a window that is shorter than an image."""
    return _built(
        layer_types=[_SLIDING, _SLIDING, _FULL, _SLIDING, _FULL],
        num_kv_shared_layers=0,
        hidden_size_per_layer_input=0,
        use_bidirectional_attention="vision",
        attention_k_eq_v=True,
        num_global_key_value_heads=1,
        enable_moe_block=True,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=32,
    )


def _built(**text: Any) -> tuple[Any, Any]:
    words = tokenizer("<|im_start|>", "<|im_end|>", _VIDEO, **_NAMED)
    torch.manual_seed(0)
    config = Gemma4Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "patch_size": PATCH,
            "pooling_kernel_size": POOLED,
            "position_embedding_size": 512,
            "initializer_range": 0.15,
        },
        text_config={**TEXT, "sliding_window": WINDOW, "global_head_dim": 32, **text},
        audio_config=None,
        boi_token_id=words.boi_token_id,
        eoi_token_id=words.eoi_token_id,
        image_token_id=words.image_token_id,
        video_token_id=words.convert_tokens_to_ids(_VIDEO),
        audio_token_id=words.audio_token_id,
        tie_word_embeddings=False,
    )
    model = Gemma4ForConditionalGeneration(config)
    sizes = {"patch_size": PATCH, "max_soft_tokens": 70, "pooling_kernel_size": POOLED}
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**sizes),
        tokenizer=words,
        video_processor=Gemma4VideoProcessor(**sizes),
        chat_template=TEMPLATE.replace("IMAGE", "<|image|>").replace("VIDEO", _VIDEO),
    )
    return finish(model, [config.image_token_id, config.video_token_id]), processor


GEMMA4 = Kind("gemma4", "<|image|>", _VIDEO, gemma4, nested=True)
GEMMA4_LARGE = Kind("gemma4-large", "<|image|>", _VIDEO, gemma4_large, nested=True)
