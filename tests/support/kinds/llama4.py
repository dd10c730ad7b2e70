"""Tiny random Llama 4, whose chunks are shorter than most prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    Llama4Config,
    Llama4ForConditionalGeneration,
    Llama4ImageProcessor,
    Llama4Processor,
)
from transformers.models.llama4.modeling_llama4 import MoeCausalLMOutputWithPast

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

if not hasattr(MoeCausalLMOutputWithPast, "image_outputs"):
    # Llama 4 asks the output of its language model for it, and does not run where it has none, as
    # in transformers 5.24.0.
    MoeCausalLMOutputWithPast.image_outputs = None

SIDE, PATCH, TOKENS = 48, 8, 9  # pixels of a tile and of a patch, visual tokens of a tile
MOST = 4  # tiles without the overview
CHUNK = 20
IMAGE, BEGIN, END = "<|image|>", "<|image_start|>", "<|image_end|>"
CELL, ACROSS, DOWN = "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>"


def llama4() -> tuple[Any, Any]:
    """Tiles of 6 x 6 patches, which are 3 x 3 tokens; layers with chunks and without rotary
    embedding take turns, and so do experts and plain feed-forward blocks."""
    words = tokenizer("<|im_start|>", "<|im_end|>", IMAGE, BEGIN, END, CELL, ACROSS, DOWN)
    token = words.convert_tokens_to_ids
    torch.manual_seed(0)
    config = Llama4Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 128,  # of four patches side by side as well
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
            "vision_output_dim": 32,
            "initializer_range": 0.15,
        },
        text_config={
            **TEXT,
            "intermediate_size_mlp": 80,
            "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
            "no_rope_layer_interval": 3,
            "attention_chunk_size": CHUNK,
            "floor_scale": 256,
        },
        boi_token_index=token(BEGIN),
        eoi_token_index=token(END),
        image_token_index=token(CELL),
        initializer_range=0.15,
    )
    processor = Llama4Processor(
        Llama4ImageProcessor(size={"height": SIDE, "width": SIDE}, max_patches=MOST),
        words,
        patch_size=PATCH,
        chat_template=TEMPLATE.replace("IMAGE", IMAGE),
    )
    return finish(Llama4ForConditionalGeneration(config), [token(CELL)]), processor


def _found(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Images, whose cells stand row by row over all tiles; read from the prompt sign by sign."""
    cell, end = model.config.image_token_id, model.config.eoi_token_id
    down = cell + 2  # as the tokenizer of :func:`llama4` counts
    side = int(TOKENS**0.5)
    found, cells, band, tile = [], list[int](), list[list[int]](), list[int]()
    for place, token in enumerate(row):
        if token == cell:
            tile.append(place)
        elif tile:
            band.append(tile)
            tile = []
            if token in (end, down):  # the overview, or the last tile of a row, was before it
                for line in range(0, TOKENS, side):
                    for one in band:
                        cells += one[line : line + side]
                band = []
            if token == end:
                found.append(("image", cells))
                cells = []
    return found


LLAMA4 = Kind("llama4", IMAGE, "", llama4, _found, tile=TOKENS)
