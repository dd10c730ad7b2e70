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
from tests.support.oracles.merged import attention as of_siglip
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


def merged_squares(
    model: Any, pixels: Tensor, choose: Callable[[Seen], Pairs | None], by_size: bool = True
) -> dict[int, Tensor]:
    """As :func:`merged_tile`, of the tower of Idefics3, which has no CLS token."""
    tower, side = model.model.vision_model, pixels.shape[1] // model.config.vision_config.patch_size
    seen = torch.ones(1, side, side, dtype=torch.bool)
    states = tower.embeddings(pixels[None], patch_attention_mask=seen)[0].view(side, side, -1)
    unit, tokens = model.config.scale_factor, {}
    for number in range((side // unit) ** 2):
        row, col = (unit * place for place in divmod(number, side // unit))
        tokens[number] = states[row : row + unit, col : col + unit].flatten(0, 1)
    sizes = dict.fromkeys(tokens, 1)
    for number, block in enumerate(tower.encoder.layers):
        order = list(tokens)
        here = torch.cat([tokens[index] for index in order])
        added, maps, keys = of_siglip(block, block.layer_norm1(here), torch.zeros(len(here)))
        here = here + added
        counts = [unit**2] * len(order)
        tokens = dict(zip(order, here.split(counts), strict=True))
        received = torch.stack([own.sum() for own in maps.mean(0).mean(0).split(counts)])
        means = [torch.stack([own.mean(0) for own in v.split(counts)]) for v in (keys, here)]
        merge_pairs(
            tokens, sizes, choose(Seen(number, order, means[0], received, means[1])), by_size
        )
        tokens = {
            index: token + block.mlp(block.layer_norm2(token)) for index, token in tokens.items()
        }
    return {index: tower.post_layernorm(token) for index, token in tokens.items()}


def squares(model: Any, inputs: dict[str, Tensor], entry: Any) -> Tensor:
    """What the connector of Idefics3 gives, ``[tiles, tokens, D]``, zeros where a token was merged
    away. Cells are numbered row by row through all tiles: which tile a token is of, and where it
    lies in it, is worked out from the grid's seams."""
    rows, found = inputs["pixel_values"], []
    linear = model.model.connector.modality_projection
    for row, sample in enumerate(entry.steps):
        pixels = iter(rows[row])
        for grid, steps in zip(entry.grid[row], sample, strict=True):
            start = 0
            for part in grid.parts:
                side = part.rows // (len(part.seams[0]) + 1)
                for down in range(0, part.rows, side):
                    for across in range(0, part.cols, side):
                        cells = {
                            start + (down + y) * part.cols + across + x: y * side + x
                            for y in range(side)
                            for x in range(side)
                        }
                        own = [(b, *_within(cells, gone, into)) for b, gone, into in steps]
                        tokens = merged_squares(model, next(pixels), given(own), entry.by_size)
                        full = torch.zeros(side**2, model.config.text_config.hidden_size)
                        for index, token in tokens.items():
                            full[index] = linear(token.flatten())
                        found.append(full)
                start += part.size
    return torch.stack(found)


def _within(cells: dict[int, int], gone: Tensor, into: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of one tile, whose ``cells`` have these numbers in it."""
    pairs = [
        (cells[a], cells[b])
        for a, b in zip(gone.tolist(), into.tolist(), strict=True)
        if a in cells
    ]
    sources, destinations = ([pair[n] for pair in pairs] for n in (0, 1))
    return torch.tensor(sources), torch.tensor(destinations)
