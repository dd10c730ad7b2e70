"""Models with a Pixtral tower: Mistral 3, and LLaVA with one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
)

from tests.support.families import TEMPLATE, TEXT, Kind, finish, tokenizer

PATCH, MERGE = 4, 2  # pixels; patches along a side of a token of Mistral 3
LONGEST = 72  # pixels of the longer side of an image
_SPECIAL = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
_VISION = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "head_dim": 8,
    "image_size": LONGEST,
    "patch_size": PATCH,
    "initializer_range": 0.15,
}
_MISTRAL = {"model_type": "mistral", "sliding_window": None, **TEXT}


def _processor(words: Any, patch: int, merge: int) -> Any:
    return PixtralProcessor(
        PixtralImageProcessor(
            size={"longest_edge": LONGEST}, patch_size={"height": patch, "width": patch}
        ),
        words,
        patch_size=patch,
        spatial_merge_size=merge,
        chat_template=TEMPLATE.replace("IMAGE", "[IMG]"),
    )


def mistral3() -> tuple[Any, Any]:
    """A token is 2 x 2 patches, 8 x 8 pixels."""
    words = tokenizer(*_SPECIAL, "<|im_start|>", "<|im_end|>")
    token = words.convert_tokens_to_ids("[IMG]")
    torch.manual_seed(0)
    config = Mistral3Config(
        vision_config=_VISION,
        text_config=_MISTRAL,
        image_token_index=token,
        spatial_merge_size=MERGE,
        tie_word_embeddings=False,
    )
    model = finish(Mistral3ForConditionalGeneration(config), [token])
    return model, _processor(words, PATCH, MERGE)


def llava_pixtral() -> tuple[Any, Any]:
    """A token is a patch of 8 x 8 pixels."""
    words = tokenizer(*_SPECIAL, "<|im_start|>", "<|im_end|>")
    token = words.convert_tokens_to_ids("[IMG]")
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config={**_VISION, "patch_size": 2 * PATCH},
        text_config=_MISTRAL,
        image_token_index=token,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = finish(LlavaForConditionalGeneration(config), [token])
    return model, _processor(words, 2 * PATCH, 1)


def rows_of_images(model: Any, row: Sequence[int]) -> list[tuple[str, list[int]]]:
    """An image ends at [IMG_END], which the tokenizer has two places behind [IMG]."""
    token = model.config.image_token_id
    found: list[tuple[str, list[int]]] = [("image", [])]
    for place, one in enumerate(row):
        if one == token:
            found[-1][1].append(place)
        elif one == token + 2:
            found.append(("image", []))
    return found[:-1]


MISTRAL3 = Kind("mistral3", "[IMG]", "", mistral3, rows_of_images)
LLAVA_PIXTRAL = Kind("llava-pixtral", "[IMG]", "", llava_pixtral, rows_of_images)
