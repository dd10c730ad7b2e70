"""LLaVA-NeXT-Video."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import (
    LlavaNextImageProcessor,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
)

from tests.support.families import PATCH, PINPOINTS, TEMPLATE, TEXT, TILE, Kind, finish, tokenizer
from tests.support.real_prompts import cells_of

FRAMES, POOLED = 4, 2  # of every video; rows and columns of a frame


def llava_next_video(mode: str = "average") -> tuple[Any, Any]:
    """CLIP tiles of 4 x 4 tokens, frames of 2 x 2."""
    words = tokenizer("<image>", "<video>", "<|im_start|>", "<|im_end|>")
    image, video = words.convert_tokens_to_ids(["<image>", "<video>"])
    torch.manual_seed(0)
    config = LlavaNextVideoConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": TILE,
            "patch_size": PATCH,
            "projection_dim": 32,
        },
        text_config={"model_type": "llama", **TEXT},
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=(TILE // PATCH) ** 2,
        spatial_pool_mode=mode,
    )
    sizes = {"size": {"shortest_edge": TILE}, "crop_size": {"height": TILE, "width": TILE}}
    processor = LlavaNextVideoProcessor(
        image_processor=LlavaNextImageProcessor(**sizes, image_grid_pinpoints=PINPOINTS),
        video_processor=LlavaNextVideoVideoProcessor(**sizes),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>").replace("VIDEO", "<video>"),
    )
    return finish(LlavaNextVideoForConditionalGeneration(config), [image, video]), processor


def found(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """All placeholders of videos, and those of images that are no newlines."""
    names = {model.config.image_token_id: "image", model.config.video_token_id: "video"}
    inputs = []
    for token, run in groupby(enumerate(row), key=lambda item: item[1]):
        if token in names:
            places = [place for place, _ in run]
            if names[token] == "image":
                places = [places[cell] for cell in cells_of(model, len(places))]
            inputs.append((names[token], places))
    return inputs


LLAVA_NEXT_VIDEO = Kind(
    "llava-next-video", "<image>", "<video>", llava_next_video, found, frames=FRAMES
)
