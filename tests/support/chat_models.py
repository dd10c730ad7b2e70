"""Tiny random models for the processors of :mod:`tests.support.chat_templates`."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from tests.support.chat_templates import llava_processor, qwen_processor


def tiny_llava() -> tuple[Any, Any]:
    """A LLaVA-1.5 of 16 visual tokens and 3 decoder layers, and its processor."""
    torch.manual_seed(0)
    processor = llava_processor()
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=32,
        ),
        text_config=LlamaConfig(
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=len(tokenizer),
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            initializer_range=0.15,
        ),
        image_token_id=processor.image_token_id,
        image_seq_length=16,
    )
    return _ready(LlavaForConditionalGeneration(config), processor)


def tiny_qwen() -> tuple[Any, Any]:
    """A Qwen2.5-VL of 2 decoder layers, and its processor."""
    torch.manual_seed(0)
    processor = qwen_processor()
    tokenizer = processor.tokenizer
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 4,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
        },
        text_config={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
            },
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "initializer_range": 0.15,
        },
        **{
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>")
            for name, word in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        },
    )
    return _ready(Qwen2_5_VLForConditionalGeneration(config), processor)


def _ready(model: Any, processor: Any) -> tuple[Any, Any]:
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    placeholders = [model.config.image_token_id]
    model.generation_config.suppress_tokens = placeholders  # an answer must not hold any
    return model.eval(), processor
