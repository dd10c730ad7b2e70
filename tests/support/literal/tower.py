"""What an unmodified tower attends to, and the best of it, read slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.support.literal.clse import best
from tests.support.oracles.merged_windows import frames_of, merged_frame


@torch.no_grad()
def looked(model: Any, pixels: Tensor, block: int = -2) -> list[tuple[Tensor, list[float]]]:
    """Of each image or tile, by a CLIP, SigLIP or InternViT tower: what the tower has behind its
    patches in ``block`` ``[patches, D]``, and the attention there of CLS to each, mean over heads;
    without CLS what each receives, mean over heads and queries."""
    tower = model.model.vision_tower
    vision = model.config.vision_config
    has_cls = vision.model_type in ("clip_vision_model", "internvl_vision")
    before = vision._attn_implementation
    tower.set_attn_implementation("eager")
    out = tower(pixels, output_hidden_states=True, output_attentions=True)
    tower.set_attn_implementation(before)
    found = []
    for states, maps in zip(out.hidden_states[block], out.attentions[block], strict=True):
        values = []
        for patch in range(int(has_cls), states.shape[0]):
            total, queries = 0.0, [0] if has_cls else range(states.shape[0])
            for head in range(len(maps)):
                for query in queries:
                    total += float(maps[head, query, patch])
            values.append(total / len(maps) / len(queries))
        found.append((states[int(has_cls) :], values))
    return found


def received_by_frames(model: Any, inputs: dict[str, Tensor]) -> dict[tuple[str, int], list[Any]]:
    """Of each input of a Qwen2.5-VL, by kind and number, for each of its frames in turn: the merged
    features ``[n, D]``, and attention received in the last block, mean over heads."""
    found: dict[tuple[str, int], list[Any]] = {}
    for kind, number, grid, pixels in frames_of(inputs, 2):
        seen: list[Any] = []
        with torch.no_grad():
            features, _ = merged_frame(model.model.visual, pixels, grid, seen.append)
        own = torch.stack([features[token] for token in range(grid.size)])
        found.setdefault((kind, number), []).append((own, seen[-1].received.tolist()))
    return found


def share_of(count: int, sizes: Sequence[int]) -> list[int]:
    """``count`` in proportion to ``sizes``: rounded down, the rest to the largest remainders."""
    exact = [count * size / sum(sizes) for size in sizes]
    found = [int(one + 1e-9) for one in exact]
    order = sorted(range(len(sizes)), key=lambda n: (found[n] - exact[n], n))
    for n in order[: count - sum(found)]:
        found[n] += 1
    return found


def best_of_each(scores: Sequence[Sequence[float]], count: int) -> list[list[int]]:
    """Of the pieces of an input, which tokens of each are kept if ``count`` are in all."""
    counts = share_of(count, [len(own) for own in scores])
    return [best(list(own), most) for own, most in zip(scores, counts, strict=True)]
