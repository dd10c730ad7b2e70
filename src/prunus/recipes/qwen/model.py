"""Builds ``tiny-qwen``: a real, small ``Qwen2_5_VLForConditionalGeneration``, untrained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from prunus.recipes.qwen.words import IMAGE, VIDEO, VISION_END, VISION_START, build_tokenizer


@dataclass(frozen=True)
class QwenShape:
    """Sizes of the model. The default is the one that ships."""

    patch: int = 8
    merge: int = 2
    window: int = 64
    depth: int = 8
    full: tuple[int, ...] = (3, 7)
    tower_width: int = 128
    tower_mlp: int = 320
    tower_heads: int = 4
    layers: int = 12
    width: int = 128
    mlp: int = 384
    heads: int = 4

    @property
    def cell(self) -> int:
        """Side of what one visual token covers, in pixels."""
        return self.patch * self.merge


def build_model(
    shape: QwenShape | None = None, seed: int = 0
) -> Qwen2_5_VLForConditionalGeneration:
    """The untrained model, float32; the same weights for the same seed.

    The sections of M-RoPE take turns (time, row, column, time, ...) as in later Qwen models: in
    blocks, as in the published Qwen2.5-VL, the columns would get frequencies so low in heads of
    32 channels that they could not be told apart.
    """
    shape = shape or QwenShape()
    tokenizer = build_tokenizer()
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": shape.depth,
            "hidden_size": shape.tower_width,
            "intermediate_size": shape.tower_mlp,
            "num_heads": shape.tower_heads,
            "patch_size": shape.patch,
            "temporal_patch_size": 2,
            "spatial_merge_size": shape.merge,
            "window_size": shape.window,
            "fullatt_block_indexes": list(shape.full),
            "out_hidden_size": shape.width,
            "tokens_per_second": 2,
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.width,
            "intermediate_size": shape.mlp,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1] * (shape.width // shape.heads // 2),
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": False,
        },
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO),
        vision_start_token_id=tokenizer.convert_tokens_to_ids(VISION_START),
        vision_end_token_id=tokenizer.convert_tokens_to_ids(VISION_END),
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
        _scale(model)
        _see_neighbours_first(model)
    generation = model.generation_config
    generation.eos_token_id = tokenizer.eos_token_id
    generation.pad_token_id = tokenizer.pad_token_id
    return model.float().eval()


@torch.no_grad()
def _scale(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Initial scales that suit a narrow model; 0.02 is meant for thousands of channels."""
    decoder, tower = model.model.language_model, model.model.visual
    nn.init.normal_(decoder.embed_tokens.weight, std=0.25)
    nn.init.normal_(model.lm_head.weight, std=0.25 / math.sqrt(decoder.config.hidden_size))
    for part in (decoder.layers, tower.blocks):
        for name, weight in part.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight"))
                nn.init.normal_(weight, std=(0.25 if writes else 1.0) / math.sqrt(weight.shape[1]))
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
    for layer in (tower.merger.mlp[0], tower.merger.mlp[2]):
        nn.init.normal_(layer.weight, std=1.0 / math.sqrt(layer.weight.shape[1]))
    weight = tower.patch_embed.proj.weight
    nn.init.normal_(weight, std=1.0 / math.sqrt(weight[0].numel()))


#: Where the heads of the tower's blocks look at the start, (rows, columns) in patches.
_NEAR = ((-1, 0), (1, 0), (0, -1), (0, 1))
_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_FAR = ((-2, 0), (2, 0), (0, -2), (0, 2))
_LOOKS = (_NEAR, _DIAGONAL, _NEAR, _FAR, _DIAGONAL, _FAR)
_SHARP = 4.0


@torch.no_grad()
def _see_neighbours_first(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Start the tower as if it were a convolution: its first heads look at near patches.

    A ViT learns locality from data only slowly. A constant key and a constant query, turned
    against each other by the rotary embedding, score highest where the difference in place
    undoes their own angle. Both are the biases of the projection, ordinary weights.
    """
    tower = model.model.visual
    freq = tower.rotary_pos_emb.inv_freq
    width, heads = tower.config.hidden_size, tower.config.num_heads
    head, pairs = width // heads, len(freq)
    near = int((freq > 0.05).sum())  # the others hardly turn within a window
    for block, offsets in zip(tower.blocks, _LOOKS, strict=False):
        bias = block.attn.qkv.bias
        for index, (down, right) in enumerate(offsets[:heads]):
            query, key = bias[index * head :][:head], bias[width + index * head :][:head]
            for axis, offset in enumerate((down, right)):
                at = slice(axis * pairs, axis * pairs + near)
                other = slice(head // 2 + axis * pairs, head // 2 + axis * pairs + near)
                angle = offset * freq[:near]
                key[at] = _SHARP
                query[at], query[other] = _SHARP * angle.cos(), _SHARP * angle.sin()
