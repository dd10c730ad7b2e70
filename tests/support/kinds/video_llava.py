"""Video-LLaVA."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import (
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaImageProcessor,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH = 32, 8  # pixels of an image or frame, and of a patch
CELLS = (SIDE // PATCH) ** 2
FRAMES = 3  # of every video: those of one call cannot differ


def video_llava() -> tuple[Any, Any]:
    """4 x 4 tokens of an image; 4 x 4 of each frame of a video, with CLS in front."""
    words = tokenizer("<image>", "<video>", "<|im_start|>", "<|im_end|>")
    image, video = words.convert_tokens_to_ids(["<image>", "<video>"])
    torch.manual_seed(0)
    config = VideoLlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "projection_dim": 32,
        },
        text_config={"model_type": "llama", **TEXT},
        image_token_index=image,
        video_token_index=video,
        image_seq_length=CELLS,
        video_seq_length=FRAMES * (1 + CELLS),
    )
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    processor = VideoLlavaProcessor(
        image_processor=VideoLlavaImageProcessor(**sizes),
        video_processor=VideoLlavaVideoProcessor(**sizes),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>").replace("VIDEO", "<video>"),
    )
    return finish(VideoLlavaForConditionalGeneration(config), [image, video]), processor


def found(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Of each run of video placeholders, all but the first of each frame."""
    names = {model.config.image_token_id: "image", model.config.video_token_id: "video"}
    inputs = []
    for token, run in groupby(enumerate(row), key=lambda item: item[1]):
        if token in names:
            places = [place for place, _ in run]
            if names[token] == "video":
                places = [place for n, place in enumerate(places) if n % (1 + CELLS)]
            inputs.append((names[token], places))
    return inputs


VIDEO_LLAVA = Kind("video-llava", "<image>", "<video>", video_llava, found, frames=FRAMES)
