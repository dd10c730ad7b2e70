"""VideoLLaMA 3."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

PATCH = 8  # pixels: a visual token of an image; in a video it is 2 x 2 of them
_IMAGE, _VIDEO = "<|image_pad|>", "<|video_pad|>"


def video_llama3() -> tuple[Any, Any]:
    """Videos are not compressed."""
    words = tokenizer(_IMAGE, _VIDEO, "<|im_start|>", "<|im_end|>")
    image, video = words.convert_tokens_to_ids([_IMAGE, _VIDEO])
    torch.manual_seed(0)
    config = VideoLlama3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "patch_size": PATCH,
            "initializer_range": 0.15,
        },
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=image,
        video_token_id=video,
    )
    sizes = {"shortest_edge": 8 * PATCH**2, "longest_edge": 64 * PATCH**2}
    wide = {name: 4 * size for name, size in sizes.items()}
    processor = VideoLlama3Processor(
        image_processor=VideoLlama3ImageProcessor(patch_size=PATCH, merge_size=1, size=sizes),
        tokenizer=words,
        video_processor=VideoLlama3VideoProcessor(
            patch_size=PATCH, merge_size=2, size=wide, use_token_compression=False
        ),
        chat_template=TEMPLATE.replace("IMAGE", _IMAGE).replace("VIDEO", _VIDEO),
    )
    return finish(VideoLlama3ForConditionalGeneration(config), [image, video]), processor


VIDEO_LLAMA3 = Kind(
    "video-llama-3",
    _IMAGE,
    _VIDEO,
    video_llama3,
    each=("image_merge_sizes", "video_merge_sizes"),
    timed=True,
)
