"""The oracle for methods that merge inside the tower of a Qwen-VL, of GLM-4V, VideoLLaMA 3 or
Kimi-K2.5: the same pairs, merged by hand.

Nothing here uses the engine or the tower's own bookkeeping. One frame at a time (frames never meet
in this tower), one attention head at a time, tokens in a dictionary by their original index, each
with its square of patches.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunus.grid import Grid
from tests.support.oracles.merged import Pairs, Seen, merge_pairs


def angles(grid: Grid, token: int, merge: int, width: int) -> Tensor:
    """``[patches, width]``: rotary angles of a token's patches, half of them from the row, half
    from the column."""
    frequencies = 10000.0 ** -(torch.arange(0, width // 2, 2) / (width // 2))
    found = []
    for patch in range(merge**2):
        row = token // grid.cols * merge + patch // merge
        col = token % grid.cols * merge + patch % merge
        half = torch.cat([row * frequencies, col * frequencies])
        found.append(torch.cat([half, half]))
    return torch.stack(found)


def rotated(values: Tensor, angle: Tensor) -> Tensor:
    """``[rows, width]`` turned by ``angle``."""
    half = values.shape[1] // 2
    turned = torch.cat([-values[:, half:], values[:, :half]], dim=1)
    return values * angle.cos() + turned * angle.sin()


def learned(tower: Any, grid: Grid, merge: int) -> Tensor:
    """``[patches, D]``: the learned position embedding, a square table whose corners are those of
    the frame, between whose entries patches take shares."""
    table = tower.pos_embed.weight
    side = int(len(table) ** 0.5)
    found = []
    for token in range(grid.size):
        for patch in range(merge**2):
            row = token // grid.cols * merge + patch // merge
            col = token % grid.cols * merge + patch % merge
            across = row * (side - 1) / (grid.rows * merge - 1)
            along = col * (side - 1) / (grid.cols * merge - 1)
            share = torch.zeros(table.shape[1])
            for i in range(side):
                for j in range(side):
                    weight = max(0.0, 1 - abs(across - i)) * max(0.0, 1 - abs(along - j))
                    if weight:
                        share = share + weight * table[i * side + j]
            found.append(share)
    return torch.stack(found)


@dataclass
class Block:
    """A block of a tower in pieces: queries, keys and values behind the first norm, what stands
    behind the heads, and the MLP behind the second norm."""

    project: Callable[[Tensor], Sequence[Tensor]]
    out: Callable[[Tensor], Tensor]
    fed: Callable[[Tensor], Tensor]


def blocks_of(tower: Any) -> list[Block]:
    """Those of a tower, by the names that its family has for them."""
    if hasattr(tower, "temporal_merge"):  # Kimi-K2.5
        return [
            Block(
                lambda states, a=block.attn, norm=block.norm1: [  # type: ignore[misc]
                    projection(norm(states)) for projection in (a.q_proj, a.k_proj, a.v_proj)
                ],
                block.attn.proj,
                lambda states, b=block: b.mlp(b.norm2(states)),  # type: ignore[misc]
            )
            for block in tower.layers
        ]
    if not hasattr(tower, "encoder"):
        return [
            Block(
                lambda states, b=block: b.attn.qkv(b.norm1(states)).chunk(3, dim=1),  # type: ignore[misc]
                block.attn.proj,
                lambda states, b=block: b.mlp(b.norm2(states)),  # type: ignore[misc]
            )
            for block in tower.blocks
        ]
    return [  # VideoLLaMA 3
        Block(
            lambda states, a=block.self_attn, norm=block.layer_norm1: [  # type: ignore[misc]
                projection(norm(states)) for projection in (a.q_proj, a.k_proj, a.v_proj)
            ],
            block.self_attn.out_proj,
            lambda states, b=block: b.mlp(b.layer_norm2(states)),  # type: ignore[misc]
        )
        for block in tower.encoder.layers
    ]


def merged_frame(
    tower: Any,
    pixels: Tensor,
    grid: Grid,
    choose: Callable[[Seen], Pairs | None],
    by_size: bool = True,
    early: list[dict[int, Tensor]] | None = None,
) -> tuple[dict[int, Tensor], list[dict[int, int]]]:
    """Run the tower on one frame (``pixels``: its patches), merging the pairs that ``choose`` names
    at each block.

    Args:
        early: takes features of earlier blocks of what is left (Qwen3-VL), which merge as tokens
            do.

    Returns:
        features of what is left by original index, and behind every block how many original tokens
        each stands for.
    """
    early = [] if early is None else early
    mergers = dict(
        zip(
            getattr(tower, "deepstack_visual_indexes", ()),
            getattr(tower, "deepstack_merger_list", ()),
            strict=True,
        )
    )
    config, heads = tower.config, tower.config.num_attention_heads
    unit = len(pixels) // grid.size
    merge = math.isqrt(unit)
    # Qwen2-VL has no windows, and calls the channels of its tower otherwise.
    window = getattr(config, "window_size", 0) // merge // config.patch_size
    width = getattr(config, "embed_dim", config.hidden_size) // heads
    if hasattr(tower, "temporal_merge"):
        tokens, turns = clip(tower, pixels, grid, width)
    else:
        embedded = entered(tower, pixels, grid)
        tokens = {n: embedded[n * unit : (n + 1) * unit] for n in range(grid.size)}
        turns = {n: angles(grid, n, merge, width) for n in tokens}
    sizes = dict.fromkeys(tokens, 1)
    history = []
    for number, block in enumerate(blocks_of(tower)):
        rooms: dict[Any, list[int]] = {}
        for token in tokens:
            row, col = divmod(token, grid.cols)
            full = not window or number in config.fullatt_block_indexes
            rooms.setdefault(None if full else (row // window, col // window), []).append(token)
        keys, received, turned = {}, {}, {}
        for members in rooms.values():
            here = torch.cat([tokens[token] for token in members])
            turn = torch.cat([turns[token] for token in members])
            query, key, value = block.project(here)
            mixed, columns, plain, moved = [], [], [], []
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                logits = rotated(query[:, part], turn) @ rotated(key[:, part], turn).T
                weights = torch.exp(logits / width**0.5)
                weights = weights / weights.sum(1, keepdim=True)
                mixed.append(weights @ value[:, part])
                columns.append(weights.sum(0))  # over the queries of this window or frame
                plain.append(key[:, part])
                moved.append(rotated(key[:, part], turn))
            here = here + block.out(torch.cat(mixed, dim=1))
            mean_key = sum(plain[1:], plain[0]) / heads
            mean_moved = sum(moved[1:], moved[0]) / heads
            column = sum(columns[1:], columns[0]) / heads
            for place, token in enumerate(members):
                rows = slice(place * unit, (place + 1) * unit)
                tokens[token] = here[rows]
                keys[token] = mean_key[rows].mean(0)
                turned[token] = mean_moved[rows].mean(0)
                received[token] = column[rows].sum()
        order = list(tokens)
        seen = Seen(
            number,
            order,
            torch.stack([keys[token] for token in order]),
            torch.stack([received[token] for token in order]),
            torch.stack([tokens[token].mean(0) for token in order]),
            torch.stack([turned[token] for token in order]),
        )
        pairs = choose(seen)
        for features in early:
            merge_pairs(features, dict(sizes), pairs, by_size)
        merge_pairs(tokens, sizes, pairs, by_size)
        tokens = {token: state + block.fed(state) for token, state in tokens.items()}
        history.append(dict(sizes))
        if number in mergers:
            early.append({token: mergers[number](state)[0] for token, state in tokens.items()})
    return {token: left(tower, state) for token, state in tokens.items()}, history


def entered(tower: Any, pixels: Tensor, grid: Grid) -> Tensor:
    """What the first block is given of a frame, ``[patches, D]``."""
    if hasattr(tower, "encoder"):
        entering: Tensor = tower.embeddings(pixels)
        return entering
    embedded: Tensor = tower.patch_embed(pixels)
    merge = tower.spatial_merge_size
    if hasattr(tower, "pos_embed"):
        return embedded + learned(tower, grid, merge)
    if not hasattr(tower, "post_conv_layernorm"):
        return embedded
    rows, cols = [], []  # GLM-4V: a learned place for each patch, by its coordinates
    for token in range(grid.size):
        for patch in range(merge**2):
            rows.append(token // grid.cols * merge + patch // merge)
            cols.append(token % grid.cols * merge + patch % merge)
    size = torch.tensor([[1, grid.rows * merge, grid.cols * merge]])
    normed = tower.post_conv_layernorm(embedded)
    count = torch.tensor([len(rows)])
    placed: Tensor = tower.embeddings(normed, count, size, torch.tensor(rows), torch.tensor(cols))
    return placed


def clip(
    tower: Any, pixels: Tensor, grid: Grid, width: int
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Kimi-K2.5: what the first block is given of a clip, and rotary angles, by token: its 2 x 2
    patches of the first frame, then those of the next. Pixels are frame by frame, row by row."""
    high, wide = 2 * grid.rows, 2 * grid.cols
    times, channels = len(pixels) // (high * wide), tower.config.hidden_size
    states = tower.patch_embed.proj(pixels).view(times, high, wide, channels)
    table = tower.patch_embed.pos_emb.position_embeddings.permute(2, 0, 1)[None]
    table = F.interpolate(table, (high, wide), mode="bicubic", align_corners=False)[0]
    states = states + table.permute(1, 2, 0)
    waves = 10000.0 ** -(torch.arange(0, channels, 2) / channels)
    frequencies = 10000.0 ** -(torch.arange(0, width // 2, 2) / (width // 2))
    tokens, turns = {}, {}
    for token in range(grid.size):
        row, col = divmod(token, grid.cols)
        patches, turn = [], []
        for time in range(times):
            moment = torch.cat([(time * waves).sin(), (time * waves).cos()])
            for y, x in ((2 * row + i, 2 * col + j) for i in range(2) for j in range(2)):
                patches.append(states[time, y, x] + (moment if times > 1 else 0))
                half = torch.stack([x * frequencies, y * frequencies], dim=1).flatten()
                turn.append(torch.cat([half, half]))
        tokens[token], turns[token] = torch.stack(patches), torch.stack(turn)
    return tokens, turns


def left(tower: Any, state: Tensor) -> Tensor:
    """The visual token ``[D]`` of its patches ``[patches, D]`` behind the last block; of towers
    whose projector stands outside, what enters it."""
    if hasattr(tower, "temporal_merge"):
        pooled: Tensor = tower.final_layernorm(state).unflatten(0, (-1, 4)).mean(0)
        return pooled
    if hasattr(tower, "downsample"):  # GLM-4V: patches are joined by a convolution
        normed = tower.post_layernorm(state)
        kernel = tower.downsample.weight.flatten(2)  # [out, in, patches]
        state = torch.einsum("oip,pi->o", kernel, normed)[None] + tower.downsample.bias
    if hasattr(tower, "encoder"):  # VideoLLaMA 3
        mean: Tensor = tower.post_layernorm(state).mean(0)
        return mean
    token: Tensor = tower.merger(state)[0]
    return token


def frames_of(
    inputs: dict[str, Tensor], merge: int, clips: bool = False
) -> Iterator[tuple[str, int, Grid, Tensor]]:
    """Kind, number among its kind, grid of one frame, and patches, frame by frame, or all those of
    a clip. ``merge``: patches along a side of a token, where inputs do not say it."""
    for kind, name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        start = 0
        for number, (time, rows, cols) in enumerate(inputs.get(f"{kind}_grid_thw", [])):
            sizes = inputs.get(f"{kind}_merge_sizes")
            side = merge if sizes is None else int(sizes[number])
            grid = Grid(1, int(rows) // side, int(cols) // side, (1, 1))
            for _ in range(1 if clips else int(time)):
                patches = grid.size * side**2 * (int(time) if clips else 1)
                yield kind, number, grid, inputs[name][start : start + patches]
                start += patches


def projected(model: Any, token: Tensor) -> Tensor:
    """What a projector outside the tower makes of a token."""
    if hasattr(model.model, "mm_projector"):
        return model.model.mm_projector(token[None])[0, 0]  # type: ignore[no-any-return]
    return model.model.projector(token)  # type: ignore[no-any-return]


def window_features(model: Any, inputs: dict[str, Tensor], entry: Any) -> dict[str, list[Tensor]]:
    """For each kind the tower's outputs ``[tokens, D]``, zeros where a token was merged away: those
    behind the last block, then those of earlier ones."""
    given: dict[tuple[str, int], Any] = {}
    counts: dict[str, int] = {}
    for kinds, sample in zip(entry.kind, entry.steps, strict=True):
        for kind, steps in zip(kinds, sample, strict=True):
            given[kind, counts.get(kind, 0)] = steps
            counts[kind] = counts.get(kind, 0) + 1
    found: dict[str, list[list[Tensor]]] = {}
    frame, last = 0, None
    tower = next(
        getattr(model.model, name)
        for name in ("visual", "vision_model", "vision_tower")
        if hasattr(model.model, name)
    )
    clips = hasattr(tower, "temporal_merge")
    merge = 2 if clips else getattr(tower, "spatial_merge_size", 1)
    if model.dtype != torch.float32:  # rounded weights, exact arithmetic
        tower = copy.deepcopy(tower).float()
    for kind, number, grid, pixels in frames_of(inputs, merge, clips):
        frame = frame + 1 if (kind, number) == last else 0
        last, first = (kind, number), frame * grid.size
        pairs = {}
        for block, source, destination in given[kind, number]:
            own = [index for index in range(len(source)) if source[index] // grid.size == frame]
            pairs[block] = (
                [int(source[index]) - first for index in own],
                [int(destination[index]) - first for index in own],
            )

        def choose(seen: Seen, pairs: dict[int, Pairs] = pairs) -> Pairs | None:
            return pairs.get(seen.block)

        early: list[dict[int, Tensor]] = []
        tokens, _ = merged_frame(tower, pixels.float(), grid, choose, entry.by_size, early)
        whole = []
        for features in (tokens, *early):
            full = torch.zeros(grid.size, model.config.text_config.hidden_size, dtype=model.dtype)
            for index, token in features.items():
                full[index] = token if hasattr(tower, "merger") else projected(model, token)
            whole.append(full)
        found.setdefault(kind, []).append(whole)
    return {
        kind: [torch.cat(own) for own in zip(*parts, strict=True)] for kind, parts in found.items()
    }
