"""Tiny random LLaVAs of the real architecture, and prompts with images for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

IMAGE, PAD = 100, 0


SIDE, PATCH = 32, 8


TOKENS = (SIDE // PATCH) ** 2  # visual tokens per image


DEPTH = 5


def text_config(depth: int = DEPTH) -> LlamaConfig:
    # A wide initialisation, so that tokens differ and attention is not flat.
    return LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=depth,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=128,
        max_position_embeddings=512,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=127,
        initializer_range=0.15,
    )


def llava_clip(depth: int = DEPTH) -> LlavaForConditionalGeneration:
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=32,
    )
    return llava_with(vision, depth, vision_feature_select_strategy="default")


def llava_clip_full(depth: int = DEPTH) -> LlavaForConditionalGeneration:
    """CLIP with its CLS token among the image tokens (strategy "full")."""
    model = llava_clip(depth)
    model.config.vision_feature_select_strategy = "full"
    return model


def llava_siglip(depth: int = DEPTH) -> LlavaForConditionalGeneration:
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
    )
    return llava_with(vision, depth, vision_feature_select_strategy="full")


def llava_with(vision: Any, depth: int, **options: Any) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config(depth),
        image_token_id=IMAGE,
        image_seq_length=TOKENS,
        **options,
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.pad_token_id = PAD
    model.generation_config.suppress_tokens = [IMAGE]  # an answer must not hold placeholders
    return model


@dataclass
class Prompts:
    """Prompts for one model: which placeholders an image has, and where its grid tokens are."""

    extra: int  # placeholders of an image in front of its grid tokens

    def rows(self, *images: int, text: int = 6, seed: int = 1) -> dict[str, Tensor]:
        """A left-padded batch; row i has ``images[i]`` images and some text around each."""
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for number, count in enumerate(images):
            row: list[int] = [1]
            for _ in range(count):
                row += torch.randint(3, 90, (3 + number,), generator=generator).tolist()
                row += [IMAGE] * (TOKENS + self.extra)
            row += torch.randint(3, 90, (text + number,), generator=generator).tolist()
            rows.append(row)
        length = max(len(row) for row in rows)
        ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        inputs = {"input_ids": ids, "attention_mask": mask}
        if sum(images):
            pixels = torch.randn(sum(images), 3, SIDE, SIDE, generator=generator)
            inputs["pixel_values"] = pixels
        return inputs

    def spots(self, ids: Tensor) -> list[list[list[int]]]:
        """``[row][image]`` logical positions of the grid tokens, counted from the ids alone."""
        step = TOKENS + self.extra
        found = []
        for row in ids.tolist():
            places = [position for position, token in enumerate(row) if token == IMAGE]
            images = [places[start : start + step] for start in range(0, len(places), step)]
            found.append([image[self.extra :] for image in images])
        return found

    def grids(self, inputs: dict[str, Tensor]) -> list[list[tuple[int, int, int]]]:
        """``[row][image]`` frames, rows and columns of visual tokens."""
        side = SIDE // PATCH
        return [[(1, side, side) for _ in images] for images in self.spots(inputs["input_ids"])]

    def one(self, inputs: dict[str, Tensor], row: int, trim: bool = False) -> dict[str, Tensor]:
        """One row of a batch by itself; ``trim`` takes its padding off."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        kept = mask[row].bool() if trim else slice(None)
        alone = {"input_ids": ids[row : row + 1, kept], "attention_mask": mask[row : row + 1, kept]}
        counts = [len(images) for images in self.spots(ids)]
        if counts[row]:
            start = sum(counts[:row])
            alone["pixel_values"] = inputs["pixel_values"][start : start + counts[row]]
        return alone
