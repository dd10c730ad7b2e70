"""Aya Vision and Command A Vision (Cohere2 Vision), whose windows are shorter than most prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    GotOcr2ImageProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH, TOKENS = 48, 8, 9  # pixels of a tile and of a patch, visual tokens of a tile
MOST = 6  # tiles without the thumbnail
WINDOW = 24
_SIZE = {"height": SIDE, "width": SIDE}
_VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
}
_TEXT = {
    "model_type": "cohere2",
    **TEXT,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
}
_TEXT["layer_types"] = _TEXT["layer_types"][: TEXT["num_hidden_layers"]]
_START, _END = "<|START_OF_IMG|>", "<|END_OF_IMG|>"
_AYA = (_START, _END, "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL", "<|IMG_PATCH|>", "<image>")
_COMMAND = {
    "boi_token": _START,
    "eoi_token": _END,
    "image_token": "<|IMG_PATCH|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
}


def aya_vision() -> tuple[Any, Any]:
    """Tiles of 3 x 3 tokens."""
    words = tokenizer(*_AYA)
    token = words.convert_tokens_to_ids("<|IMG_PATCH|>")
    torch.manual_seed(0)
    config = AyaVisionConfig(
        vision_config={**_VISION, "vision_use_head": False},
        text_config=_TEXT,
        image_token_index=token,
        alignment_intermediate_size=48,
        tie_word_embeddings=False,
    )
    processor = AyaVisionProcessor(
        image_processor=GotOcr2ImageProcessor(size=_SIZE, crop_to_patches=True, max_patches=MOST),
        tokenizer=words,
        patch_size=PATCH,
        img_size=SIDE,
        downsample_factor=2,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return finish(AyaVisionForConditionalGeneration(config), [token]), processor


def cohere2_vision() -> tuple[Any, Any]:
    """Tiles of 3 x 3 tokens, each ended by a line break."""
    words = tokenizer(**_COMMAND)
    torch.manual_seed(0)
    config = Cohere2VisionConfig(
        vision_config=_VISION,
        text_config=_TEXT,
        image_token_id=words.image_token_id,
        alignment_intermediate_size=48,
        tie_word_embeddings=False,
    )
    processor = Cohere2VisionProcessor(
        image_processor=Cohere2VisionImageProcessor(
            size=_SIZE, crop_to_patches=True, max_patches=MOST, patch_size=int(TOKENS**0.5)
        ),
        tokenizer=words,
        chat_template=TEMPLATE.replace("IMAGE", _COMMAND["image_token"]),
    )
    return finish(Cohere2VisionForConditionalGeneration(config), [words.image_token_id]), processor


def _between(words: Any) -> Callable[[Any, Sequence[int]], list[tuple[str, list[int]]]]:
    """Placeholders between the tokens that begin and end an image are those of one image."""
    start, patch = words.convert_tokens_to_ids([_START, "<|IMG_PATCH|>"])

    def found(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
        images: list[tuple[str, list[int]]] = []
        for token, run in groupby(enumerate(row), key=lambda item: item[1]):
            if token == start:
                images.append(("image", []))
            elif token == patch:
                images[-1][1].extend(place for place, _ in run)
        return images

    return found


AYA_VISION = Kind("aya-vision", "<image>", "", aya_vision, _between(tokenizer(*_AYA)), tile=TOKENS)
COHERE2_VISION = Kind(
    "cohere2-vision",
    _COMMAND["image_token"],
    "",
    cohere2_vision,
    _between(tokenizer(**_COMMAND)),
    tile=TOKENS,
)
