"""Idefics3, and SmolVLM with its processor of images (that of videos needs num2words)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH = 48, 8  # pixels of a tile, and of a patch; 2 x 2 of these are a token
LINE = SIDE // PATCH // 2  # tokens along a side of a tile
_FAKE, _IMAGE, _WHOLE = "<fake_token_around_image>", "<image>", "<global-img>"
_TILES = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
_WORDS = [_FAKE, _IMAGE, "<end_of_utterance>", _WHOLE, *_TILES, "<video>"]


def words() -> Any:
    """The tokenizer, in which all tags are single tokens."""
    return tokenizer(*_WORDS, "<|im_start|>", "<|im_end|>")


def model_of(config_class: Any, model_class: Any, **more: Any) -> Any:
    """A model whose tower sees 6 x 6 patches, which are 3 x 3 tokens."""
    token = words().convert_tokens_to_ids(_IMAGE)
    torch.manual_seed(0)
    config = config_class(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "initializer_range": 0.15,
        },
        text_config={"model_type": "llama", **TEXT},
        image_token_id=token,
        scale_factor=2,
        **more,
    )
    return finish(model_class(config), [token])


SIZES = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
CHAT = TEMPLATE.replace("IMAGE", _IMAGE).replace("VIDEO", "<video>")


def idefics3() -> tuple[Any, Any]:
    """At most 2 x 2 tiles and the whole."""
    images = Idefics3ImageProcessor(**SIZES)
    processor = Idefics3Processor(images, words(), image_seq_len=LINE**2, chat_template=CHAT)
    return model_of(Idefics3Config, Idefics3ForConditionalGeneration), processor


def smolvlm() -> tuple[Any, Any]:
    """The same, as SmolVLM."""
    images = SmolVLMImageProcessor(**SIZES)
    processor = Idefics3Processor(images, words(), image_seq_len=LINE**2, chat_template=CHAT)
    return model_of(SmolVLMConfig, SmolVLMForConditionalGeneration), processor


def _found(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """The tags say where each run of tokens lies; rows of the whole picture of tiles, one behind
    the other, are the cells in their order."""
    start = len(tokenizer()) + _WORDS.index(_TILES[0])
    whole, found = start - 1, []
    tiles: list[tuple[tuple[int, int], int]] = []
    place = 0
    while place < len(row):
        if row[place] != model.config.image_token_id:
            place += 1
            continue
        tag, cells = row[place - 1], [*range(place, place + LINE**2)]
        down, across = divmod(tag - start, 6)
        spots = [(divmod(n, LINE), at) for n, at in enumerate(cells)]
        if tag == whole:
            found.append(("image", [at for _, at in sorted(tiles)] + cells))
            tiles = []
        else:
            tiles += [((down * LINE + y, across * LINE + x), at) for (y, x), at in spots]
        place += LINE**2
    return found


IDEFICS3 = Kind("idefics3", _IMAGE, "", idefics3, _found)
SMOLVLM = Kind("smolvlm", _IMAGE, "", smolvlm, _found)
