"""InternVL."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH, TOKENS = 48, 8, 9  # pixels of a tile and of a patch, visual tokens of a tile
MOST = 6  # tiles without the thumbnail
_IMAGE, _VIDEO, _START, _END = "<IMG_CONTEXT>", "<video>", "<img>", "</img>"


def internvl() -> tuple[Any, Any]:
    """Tiles of 6 x 6 patches, which are 3 x 3 tokens."""
    words = tokenizer(
        "<|im_start|>",
        "<|im_end|>",
        context_image_token=_IMAGE,
        video_token=_VIDEO,
        start_image_token=_START,
        end_image_token=_END,
    )
    token = words.convert_tokens_to_ids(_IMAGE)
    torch.manual_seed(0)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": [SIDE, SIDE],
            "patch_size": [PATCH, PATCH],
            "initializer_range": 0.15,
        },
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=token,
        image_seq_length=TOKENS,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=MOST
        ),
        tokenizer=words,
        video_processor=InternVLVideoProcessor(size={"height": SIDE, "width": SIDE}),
        image_seq_length=TOKENS,
        chat_template=TEMPLATE.replace("IMAGE", _IMAGE).replace("VIDEO", _VIDEO),
    )
    return finish(InternVLForConditionalGeneration(config), [token]), processor


def _found(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Each run of placeholders is an image, or a frame of a video."""
    found = []
    for token, run in groupby(enumerate(row), key=lambda item: item[1]):
        if token == model.config.image_token_id:
            found.append(("image", [place for place, _ in run]))
    return found


INTERNVL = Kind("internvl", _IMAGE, _VIDEO, internvl, _found, frames=3, tile=TOKENS)
