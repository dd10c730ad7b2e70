"""The oracle for methods that merge inside InternViT: the same pairs, merged by hand.

Nothing here uses the engine or the tower's own bookkeeping. One tile at a time, one attention head
at a time, tokens in a dictionary by their original index, each with its square of patches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support.oracles.merged import Pairs, Seen, given, merge_pairs
from tests.support.oracles.merged_frames import of_frame

CLS = -1


def attention(block: Any, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Literal softmax attention: output ``[S, D]``, mean maps ``[S, S]`` and keys ``[S, d]``."""
    module = block.attention
    query = module.q_norm(module.q_proj(states))
    key, value = module.k_norm(module.k_proj(states)), module.v_proj(states)
    mixed, maps, keys = [], [], []
    for head in range(module.num_heads):
        part = slice(head * module.head_dim, (head + 1) * module.head_dim)
        logits = query[:, part] @ key[:, part].T / module.head_dim**0.5
        maps.append(torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True))
        mixed.append(maps[-1] @ value[:, part])
        keys.append(key[:, part])
    mean, seen = sum(keys[1:], keys[0]) / len(keys), sum(maps[1:], maps[0]) / len(maps)
    return module.projection_layer(torch.cat(mixed, dim=1)), seen, mean


def merged_tile(
    model: Any, pixels: Tensor, choose: Callable[[Seen], Pairs | None], by_size: bool = True
) -> dict[int, Tensor]:
    """The patches ``[4, D]`` of what is left of one tile ``[3, h, w]``, by original index, and CLS
    ``[1, D]``, behind the tower."""
    tower = model.model.vision_tower
    states = tower.embeddings(pixels[None])[0]
    side = int((len(states) - 1) ** 0.5)
    tokens = {CLS: states[:1]}
    for row in range(side // 2):
        for col in range(side // 2):
            first = 1 + 2 * row * side + 2 * col
            patches = [first, first + 1, first + side, first + side + 1]
            tokens[row * (side // 2) + col] = states[patches]
    sizes = dict.fromkeys(tokens, 1)
    for number, block in enumerate(tower.encoder.layer):
        order = list(tokens)
        here = torch.cat([tokens[index] for index in order])
        added, maps, keys = attention(block, block.layernorm_before(here))
        here = here + block.lambda_1 * added
        counts = [len(tokens[index]) for index in order]
        tokens = dict(zip(order, here.split(counts), strict=True))
        received = torch.stack([own.sum() for own in maps.mean(0).split(counts)])
        means = [torch.stack([own.mean(0) for own in v.split(counts)])[1:] for v in (keys, here)]
        choice = choose(Seen(number, order[1:], means[0], received[1:], means[1]))
        merge_pairs(tokens, sizes, choice, by_size)
        tokens = {
            index: token + block.lambda_2 * block.mlp(block.layernorm_after(token))
            for index, token in tokens.items()
        }
    return {index: tower.layernorm(token) for index, token in tokens.items()}


def tile_features(model: Any, inputs: dict[str, Tensor], entry: Any) -> Tensor:
    """What the projector gives, ``[tiles, tokens, D]``, zeros where a token was merged away; of
    prompts without sizes of pictures, whose tokens are numbered tile by tile."""
    images = [steps for sample in entry.steps for steps in sample]
    sizes = [len(into) for sample in entry.merged_into for into in sample]
    pixels, found = iter(inputs["pixel_values"]), []
    each = (model.config.vision_config.image_size[0] // 2 // 8) ** 2
    for steps, size in zip(images, sizes, strict=True):
        for tile in range(size // each):
            own = of_frame(steps, tile, each)
            tokens = merged_tile(model, next(pixels), given(own), entry.by_size)
            full = torch.zeros(each, model.config.text_config.hidden_size, dtype=model.dtype)
            for index, token in tokens.items():
                if index != CLS:
                    # Pixel shuffle puts the patches of a token behind each other.
                    full[index] = model.model.multi_modal_projector(token.flatten())
            found.append(full)
    assert next(pixels, None) is None
    return torch.stack(found)
