"""Qwen2.5-VL."""

from __future__ import annotations

from typing import Any

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLVideoProcessor,
)

from tests.support.families import MROPE, QWEN3_VL, Kind, qwen_model, qwen_processor


def qwen2_5_vl() -> tuple[Any, Any]:
    """Windows of 2 x 2 visual tokens in three of four blocks of the tower."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    text = {"rope_parameters": MROPE}
    model, words = qwen_model(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision, text)
    return model, qwen_processor(Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, words)


QWEN2_5_VL = Kind("qwen2.5-vl", QWEN3_VL.image, QWEN3_VL.video, qwen2_5_vl)
