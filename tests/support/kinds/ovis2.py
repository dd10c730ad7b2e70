"""Ovis2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    Ovis2Config,
    Ovis2ForConditionalGeneration,
    Ovis2ImageProcessor,
    Ovis2Processor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

SIDE, PATCH = 36, 6  # pixels of a tile, and of a patch; 2 x 2 of these are a token
LINE = SIDE // PATCH // 2  # tokens along a side of a tile
MOST = 6  # tiles without the whole picture
ATOM = "<IMG_ATOM>"
INDICATORS = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]


def ovis2() -> tuple[Any, Any]:
    """The whole picture in 3 x 3 tokens, and up to six tiles."""
    words = tokenizer("<image>", ATOM, *INDICATORS, "<|im_start|>", "<|im_end|>")
    token, *indicators = words.convert_tokens_to_ids([ATOM, *INDICATORS])
    torch.manual_seed(0)
    text = {"model_type": "qwen2", **TEXT}
    config = Ovis2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "vocab_size": 64,
            "hidden_stride": 2,
            "initializer_range": 0.3,
        },
        text_config=text,
        image_token_id=token,
        visual_indicator_token_ids=indicators,
        hidden_size=TEXT["hidden_size"],
        vocab_size=TEXT["vocab_size"],
        initializer_range=0.15,
    )
    processor = Ovis2Processor(
        Ovis2ImageProcessor(
            size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=MOST
        ),
        words,
        image_seq_length=LINE**2,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    model = Ovis2ForConditionalGeneration(config)
    with torch.no_grad():  # as large as words: means of many visual words are small
        model.model.visual_embeddings_table.weight *= 30
    return finish(model, [token, *indicators]), processor


def _found(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Read as a person would, from the start of an image to its end, line by line."""
    start, grid, column, line, end = model.config.visual_indicator_token_ids
    found: list[tuple[str, list[int]]] = []
    whole: list[int] = []
    tiles: list[tuple[int, int, list[int]]] = []
    for place, token in enumerate(row):
        if token == start:
            whole, tiles = [], []
        elif token == model.config.image_token_id:
            (tiles[-1][2] if tiles else whole).append(place)
        elif token == grid:
            tiles = [(0, 0, [])]
        elif token == column:
            tiles.append((tiles[-1][0], tiles[-1][1] + 1, []))
        elif token == line:
            tiles.append((tiles[-1][0] + 1, 0, []))
        elif token == end:
            cells = [
                (down * LINE + n // LINE, across * LINE + n % LINE, at)
                for down, across, own in tiles
                for n, at in enumerate(own)
            ]
            found.append(("image", whole + [at for _, _, at in sorted(cells)]))
    return found


OVIS2 = Kind("ovis2", "<image>", "", ovis2, _found, tile=LINE**2)
