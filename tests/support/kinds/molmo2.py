"""Molmo 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    Molmo2ImageProcessor,
    Molmo2Processor,
    Molmo2VideoProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH = 48, 8  # pixels of a crop and of a patch
_SIZE = {"height": SIDE, "width": SIDE}
_IMAGE, _VIDEO = "<|image|>", "<|video|>"
_PATCH, _START, _LOW, _FRAME = "<im_patch>", "<im_start>", "<low_res_im_start>", "<frame_start>"
_TOKENS = (
    _IMAGE, _VIDEO, _PATCH, _START, _LOW, _FRAME, "<im_col>", "<im_end>", "<frame_end>", "<im_low>"
)  # fmt: skip
_IDS = dict(zip(_TOKENS, tokenizer(*_TOKENS).convert_tokens_to_ids(list(_TOKENS)), strict=True))


def molmo2() -> tuple[Any, Any]:
    """Crops of 6 x 6 patches that overlap by two; 2 x 2 patches for a token of an image, 3 x 3 for
    one of a video."""
    words = tokenizer(*_TOKENS)
    torch.manual_seed(0)
    text = {name: value for name, value in TEXT.items() if not name.endswith("token_id")}
    config = Molmo2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "image_size": [SIDE, SIDE],
            "patch_size": PATCH,
            "initializer_range": 0.15,
        },
        adapter_config={
            "vision_feature_layer": [2, 1],
            "hidden_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "intermediate_size": 64,
            "text_hidden_size": TEXT["hidden_size"],
            "initializer_range": 0.15,
        },
        text_config={**text, "additional_vocab_size": 8, "rope_scaling_layers": [0, 2, 4]},
        image_start_token_id=_IDS[_START],
        low_res_image_start_token_id=_IDS[_LOW],
        image_end_token_id=_IDS["<im_end>"],
        image_patch_id=_IDS[_PATCH],
        frame_start_token_id=_IDS[_FRAME],
        frame_end_token_id=_IDS["<frame_end>"],
    )
    processor = Molmo2Processor(
        image_processor=Molmo2ImageProcessor(
            size=_SIZE, patch_size=PATCH, max_crops=4, overlap_margins=[1, 1]
        ),
        video_processor=Molmo2VideoProcessor(size=_SIZE, patch_size=PATCH),
        tokenizer=words,
        chat_template=TEMPLATE.replace("IMAGE", _IMAGE).replace("VIDEO", _VIDEO),
    )
    return finish(Molmo2ForConditionalGeneration(config), [_IDS[_PATCH]]), processor


def _found(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """An image begins with its overview; frames are of one video, of which a row has one."""
    found: list[tuple[str, list[int]]] = []
    for place, token in enumerate(row):
        if token == _IDS[_LOW]:
            found.append(("image", []))
        elif token == _IDS[_FRAME] and not (found and found[-1][0] == "video"):
            found.append(("video", []))
        elif token == _IDS[_PATCH]:
            found[-1][1].append(place)
    return found


def _alone(inputs: dict[str, Tensor], kind: str, own: slice) -> dict[str, Tensor]:
    """What the images or videos ``own`` of a batch have, patches numbered from their first."""
    pixels = "pixel_values" if kind == "image" else "pixel_values_videos"
    grids, pooling = inputs[f"{kind}_grids"], inputs[f"{kind}_token_pooling"]
    if kind == "image":
        crops = inputs["image_num_crops"].tolist()
        tokens = (grids[:, 0] * grids[:, 1] + grids[:, 2] * grids[:, 3]).tolist()
    else:
        crops, tokens = grids[:, 0].tolist(), grids.prod(1).tolist()
    first, last = sum(crops[: own.start]), sum(crops[: own.stop])
    rows = pooling[sum(tokens[: own.start]) : sum(tokens[: own.stop])]
    patches = inputs[pixels].shape[1]
    alone = {
        pixels: inputs[pixels][first:last],
        f"{kind}_grids": grids[own],
        f"{kind}_token_pooling": torch.where(rows >= 0, rows - first * patches, rows),
    }
    if kind == "image":
        alone["image_num_crops"] = inputs["image_num_crops"][own]
    return alone


MOLMO2 = Kind("molmo2", _IMAGE, _VIDEO, molmo2, _found, alone=_alone, timed=True)
