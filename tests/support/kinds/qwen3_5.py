"""Tiny random Qwen3.5, dense and as a mixture of experts."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.support.families import QWEN3_VL, Kind, qwen_model, qwen_processor

_LINEAR, _FULL = "linear_attention", "full_attention"
#: As in the published models, linear attention comes first.
LAYERS = (_LINEAR, _FULL, _LINEAR, _LINEAR, _FULL)
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
}
_TEXT = {
    "rms_norm_eps": 1e-2,  # of a random model's small states nothing but rounding would be left
    "layer_types": list(LAYERS),
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.5,
    },
}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}


def qwen3_5() -> tuple[Any, Any]:
    """Two of five layers have attention."""
    return _built(Qwen3_5Config, Qwen3_5ForConditionalGeneration, _TEXT)


def qwen3_5_moe() -> tuple[Any, Any]:
    """The same with four experts in each layer, and one that all tokens share."""
    return _built(Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration, {**_TEXT, **_EXPERTS})


def _built(config: Any, model: Any, text: dict[str, Any]) -> tuple[Any, Any]:
    made, words = qwen_model(config, model, _VISION, text)
    with torch.no_grad():
        for layer in made.model.language_model.layers:
            if hasattr(layer, "linear_attn"):  # states that are large, and last
                layer.linear_attn.conv1d.weight.mul_(5)
                layer.linear_attn.dt_bias.fill_(-3)
    return made, qwen_processor(Qwen3VLProcessor, Qwen3VLVideoProcessor, words)


QWEN3_5 = Kind("qwen3.5", QWEN3_VL.image, QWEN3_VL.video, qwen3_5)
QWEN3_5_MOE = Kind("qwen3.5-moe", QWEN3_VL.image, QWEN3_VL.video, qwen3_5_moe)
