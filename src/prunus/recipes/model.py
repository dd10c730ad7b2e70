"""Builds ``tiny-llava``: a real, small ``LlavaForConditionalGeneration`` with its processor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from prunus.tasks.scenes import CANVAS
from prunus.tasks.words import CHAT_TEMPLATE, build_tokenizer


@dataclass(frozen=True)
class Shape:
    """Sizes of a built-in model. The default is the one that ships."""

    patch: int = 8
    tower_layers: int = 9
    tower_width: int = 128
    tower_mlp: int = 512
    tower_heads: int = 4
    layers: int = 12
    width: int = 128
    mlp: int = 384
    heads: int = 4

    @property
    def side(self) -> int:
        """Patches along one side of the canvas."""
        return CANVAS // self.patch


def build_processor(shape: Shape | None = None) -> LlavaProcessor:
    """The processor: 192 px images stay as they are, others are resized and cropped."""
    shape = shape or Shape()
    image = CLIPImageProcessorPil(
        size={"height": CANVAS, "width": CANVAS},
        crop_size={"height": CANVAS, "width": CANVAS},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
    )
    return LlavaProcessor(
        image_processor=image,
        tokenizer=build_tokenizer(),
        patch_size=shape.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )


def build_model(shape: Shape | None = None, seed: int = 0) -> LlavaForConditionalGeneration:
    """The untrained model, float32; the same weights for the same seed."""
    shape = shape or Shape()
    tokenizer = build_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=shape.tower_width,
        intermediate_size=shape.tower_mlp,
        num_hidden_layers=shape.tower_layers,
        num_attention_heads=shape.tower_heads,
        image_size=CANVAS,
        patch_size=shape.patch,
        projection_dim=shape.tower_width,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=shape.side**2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        _see_neighbours_first(model, shape)
        _scale_language_model(model)
    generation = model.generation_config
    generation.bos_token_id = tokenizer.bos_token_id
    generation.eos_token_id = tokenizer.eos_token_id
    generation.pad_token_id = tokenizer.pad_token_id
    return model.float().eval()


#: Where the heads of the first tower blocks look at the start, (rows, columns) in patches.
_LOOKS = (
    ((-1, 0), (1, 0), (0, -1), (0, 1)),
    ((-1, -1), (-1, 1), (1, -1), (1, 1)),
    ((-1, 0), (1, 0), (0, -1), (0, 1)),
    ((-2, 0), (2, 0), (0, -2), (0, 2)),
)


@torch.no_grad()
def _see_neighbours_first(model: LlavaForConditionalGeneration, shape: Shape) -> None:
    """Start the tower as if it were a convolution: its first heads look at near patches.

    A ViT learns locality from data only slowly. Here position embeddings are sines and cosines
    of row and column in the last ``head_dim`` channels, which patches leave free, and queries of
    one head are those channels rotated by one offset: the score then peaks at the patch that
    lies there. All of it is ordinary weights and stays trainable.
    """
    head = shape.tower_width // shape.tower_heads
    pairs = head // 4  # frequencies per axis; each has a sine and a cosine
    freq = 1.25 * torch.logspace(0, -1.1, pairs, base=10.0)
    places = torch.arange(shape.side, dtype=torch.float32)
    rows, cols = torch.meshgrid(places, places, indexing="ij")

    tower = model.model.vision_tower
    embeddings = tower.embeddings
    table = embeddings.position_embedding.weight
    table.zero_()
    angle = torch.stack([rows.flatten(), cols.flatten()], dim=1)[:, :, None] * freq  # (n, 2, pairs)
    waves = torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(-1, head)
    table[1:, -head:] = waves
    weight = embeddings.patch_embedding.weight
    torch.nn.init.normal_(weight, std=1.0 / math.sqrt(weight[0].numel()))
    weight[-head:] = 0.0

    sharp = 2.0
    eye = torch.eye(head)
    for block, offsets in zip(tower.encoder.layers, _LOOKS, strict=False):
        attention = block.self_attn
        for index, offset in enumerate(offsets[: shape.tower_heads]):
            at = slice(index * head, (index + 1) * head)
            attention.q_proj.weight[at, -head:] += sharp * _shift(offset, freq, head)
            attention.k_proj.weight[at, -head:] += sharp * eye


def _shift(offset: tuple[int, int], freq: torch.Tensor, head: int) -> torch.Tensor:
    """The rotation ``(head, head)`` that moves position waves by ``offset`` patches."""
    turn = torch.zeros(head, head)
    for pair in range(head // 2):
        axis, index = divmod(pair, len(freq))
        delta = float(offset[axis]) * freq[index]
        at = 2 * pair
        # (sin, cos) of a + delta from (sin, cos) of a
        turn[at, at], turn[at, at + 1] = delta.cos(), delta.sin()
        turn[at + 1, at], turn[at + 1, at + 1] = -delta.sin(), delta.cos()
    return turn


@torch.no_grad()
def _scale_language_model(model: LlavaForConditionalGeneration) -> None:
    """Initial scales that suit a narrow model; Llama's 0.02 is meant for thousands of channels."""
    decoder = model.model.language_model
    torch.nn.init.normal_(decoder.embed_tokens.weight, std=0.25)
    for name, weight in decoder.layers.named_parameters():
        if weight.ndim == 2:
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            torch.nn.init.normal_(
                weight, std=(0.25 if writes else 1.0) / math.sqrt(weight.shape[1])
            )
    for layer in (
        model.model.multi_modal_projector.linear_1,
        model.model.multi_modal_projector.linear_2,
    ):
        torch.nn.init.normal_(layer.weight, std=1.0 / math.sqrt(layer.weight.shape[1]))
