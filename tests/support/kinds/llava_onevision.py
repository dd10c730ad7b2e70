"""LLaVA-OneVision."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
)
from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

from tests.support.families import SIZES, TEMPLATE, TEXT, Kind, finish, tokenizer

TILE, PATCH, ACROSS = 26, 5, 5  # pixels of a tile and of a patch; the last pixel is in no patch
FRAMES, POOLED = 4, 3  # of every video; rows and columns of a frame
PINPOINTS = [[26, 26], [26, 52], [52, 26], [52, 52], [52, 104], [104, 52]]
RATIO = "anyres_max_2"  # more than the cells of two tiles are resized to as many


def llava_onevision() -> tuple[Any, Any]:
    """SigLIP tiles of 5 x 5 tokens, frames of 3 x 3."""
    words = tokenizer("<image>", "<video>", "<|im_start|>", "<|im_end|>")
    image, video = words.convert_tokens_to_ids(["<image>", "<video>"])
    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": TILE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={"model_type": "qwen2", **TEXT},
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio=RATIO,
    )
    size = {"height": TILE, "width": TILE}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=PINPOINTS),
        tokenizer=words,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=ACROSS**2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=RATIO,
        chat_template=TEMPLATE.replace("IMAGE", "<image>").replace("VIDEO", "<video>"),
    )
    return finish(LlavaOnevisionForConditionalGeneration(config), [image, video]), processor


def packed(model: Any, size: tuple[int, int], given: torch.Tensor | None = None) -> list[float]:
    """What the model makes of the tiles of an image of ``size`` (height, width) whose features are
    ``given``, ``[tiles, cells]`` (default: numbered tile by tile); newlines are -1. Resized ones
    are means."""
    if given is None:
        tiles = image_size_to_num_patches(size, PINPOINTS, TILE)
        given = torch.arange(tiles * ACROSS**2).view(tiles, ACROSS**2).float()
    (found,), _ = model.model.pack_image_features(
        [given[..., None]], [size], image_newline=torch.tensor([-1.0]), vision_aspect_ratio=RATIO
    )
    return [float(number) for number in found.flatten()]


def found(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Of each image of one of SIZES, and of each video, all placeholders but newlines."""
    names = {model.config.image_token_id: "image", model.config.video_token_id: "video"}
    inputs = []
    for token, run in groupby(enumerate(row), key=lambda item: item[1]):
        if token not in names:
            continue
        places = [place for place, _ in run]
        if names[token] == "video":
            assert len(places) == FRAMES * POOLED**2 + 1
            cells = list(range(len(places) - 1))
        else:
            both = [packed(model, (height, width)) for width, height in SIZES]
            (one,) = [numbers for numbers in both if len(numbers) == len(places)]
            cells = [place for place, number in enumerate(one) if number >= 0]
        inputs.append((names[token], [places[cell] for cell in cells]))
    return inputs


LLAVA_ONEVISION = Kind(
    "llava-onevision", "<image>", "<video>", llava_onevision, found, frames=FRAMES
)
