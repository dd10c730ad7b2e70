"""GLM-4.1V, its mixture of experts (GLM-4.5V), and GLM-4.6V."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

PATCH, CELL = 4, 8  # pixels: a patch, and the 2 x 2 of them that are one visual token
_SPECIAL = {
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}
_VISION = {
    "hidden_size": 32,
    "out_hidden_size": 64,
    "intermediate_size": 48,
    "depth": 4,
    "num_heads": 2,
    "image_size": 32,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "initializer_range": 0.15,
}
_ROPE = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "mrope_section": [1, 1, 2],
    "partial_rotary_factor": 0.5,
}
_SIZES = {
    "patch_size": PATCH,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 8 * CELL**2, "longest_edge": 64 * CELL**2},
}
_IMAGE, _VIDEO = (f"<|begin_of_{k}|><|{k}|><|end_of_{k}|>" for k in ("image", "video"))


def _glm(
    config_class: Any, model_class: Any, text: dict[str, Any], processors: tuple[Any, Any, Any]
) -> tuple[Any, Any]:
    words = tokenizer(*_SPECIAL.values(), "<|im_start|>", "<|im_end|>")
    ids = {name: words.convert_tokens_to_ids(word) for name, word in _SPECIAL.items()}
    torch.manual_seed(0)
    config = config_class(
        vision_config=_VISION, text_config={**TEXT, "rope_parameters": _ROPE, **text}, **ids
    )
    processor, images, videos = processors
    template = TEMPLATE.replace("IMAGE", _IMAGE).replace("VIDEO", _VIDEO)
    model = finish(model_class(config), list(ids.values()))
    return model, processor(
        image_processor=images(**_SIZES),
        tokenizer=words,
        video_processor=videos(**_SIZES),
        chat_template=template,
    )


_FIRST = (Glm4vProcessor, Glm4vImageProcessor, Glm4vVideoProcessor)
_LATER = (Glm46VProcessor, Glm46VImageProcessor, Glm46VVideoProcessor)


def glm4v() -> tuple[Any, Any]:
    """The dense model."""
    return _glm(Glm4vConfig, Glm4vForConditionalGeneration, {}, _FIRST)


def glm46v() -> tuple[Any, Any]:
    """The same model with timestamps to a tenth of a second."""
    return _glm(Glm46VConfig, Glm46VForConditionalGeneration, {}, _LATER)


def glm4v_moe() -> tuple[Any, Any]:
    """Four experts and a shared one behind the first layer."""
    text = {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
    }
    return _glm(Glm4vMoeConfig, Glm4vMoeForConditionalGeneration, text, _FIRST)


def inputs_of_row(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Runs of placeholders are images; between the marks of a video all of them are one."""
    config = model.config
    found: list[tuple[str, list[int]]] = []
    video, last = False, -2
    for place, token in enumerate(row):
        if token == config.video_start_token_id:
            video = True
            found.append(("video", []))
        elif token == config.video_end_token_id:
            video = False
        elif token == config.image_token_id:
            if not video and last != place - 1:
                found.append(("image", []))
            found[-1][1].append(place)
            last = place
    return found


GLM4V = Kind("glm-4v", _IMAGE, _VIDEO, glm4v, inputs_of_row, timed=True)
GLM46V = Kind("glm-4.6v", _IMAGE, _VIDEO, glm46v, inputs_of_row, timed=True)
GLM4V_MOE = Kind("glm-4v-moe", _IMAGE, _VIDEO, glm4v_moe, inputs_of_row, timed=True)
