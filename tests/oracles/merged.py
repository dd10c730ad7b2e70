"""The oracle for methods that merge inside the vision tower: the same pairs, merged by hand.

Nothing here uses the engine. One image at a time, attention head by head as the formula has it,
tokens in a dictionary by their original index.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from prunus import TraceEntry


def attention(block: Any, states: Tensor, log_sizes: Tensor) -> Tensor:
    """Literal softmax attention ``[S, D]`` of a CLIP or SigLIP block, and its map ``[H, S, S]``."""
    module = block.self_attn
    width = module.head_dim
    query, key, value = (getattr(module, f"{name}_proj")(states) for name in ("q", "k", "v"))
    mixed, maps = [], []
    for head in range(module.num_heads):
        part = slice(head * width, (head + 1) * width)
        logits = query[:, part] @ key[:, part].T / width**0.5 + log_sizes
        maps.append(torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True))
        mixed.append(maps[-1] @ value[:, part])
    return module.out_proj(torch.cat(mixed, dim=1)), torch.stack(maps)


def merged_tower(
    model: Any, pixels: Tensor, steps: list[Any], by_size: bool = True, proportional: bool = False
) -> tuple[dict[int, Tensor], dict[int, int], list[dict[int, int]]]:
    """Run the tower on one image ``[1, 3, h, w]``, merging the pairs of ``steps``.

    Returns:
        features of what is left by original index (-1: CLS), how many original tokens each
        stands for, and these sizes behind every block.
    """
    tower, config = model.model.vision_tower, model.config
    has_cls = config.vision_config.model_type == "clip_vision_model"
    states = tower.embeddings(pixels)
    if has_cls:
        states = tower.pre_layrnorm(states)
    tokens = {number - has_cls: states[0, number] for number in range(states.shape[1])}
    sizes = dict.fromkeys(tokens, 1)
    history = []
    pairs = {block: (source, destination) for block, source, destination in steps}
    assert config.vision_feature_layer == -2  # the last block is not read
    for number, block in enumerate(tower.encoder.layers[:-1]):
        order = list(tokens)
        here = torch.stack([tokens[index] for index in order])
        logs = torch.tensor([float(sizes[index]) for index in order]).log() * proportional
        here = here + attention(block, block.layer_norm1(here), logs)[0]
        tokens = dict(zip(order, here, strict=True))
        if number in pairs:
            into: dict[int, list[int]] = {}
            for source, destination in zip(*(t.tolist() for t in pairs[number]), strict=True):
                into.setdefault(destination, []).append(source)
            for destination, sources in into.items():
                met = [destination, *sources]
                weights = [sizes[index] if by_size else 1 for index in met]
                whole = sum(w * tokens[index] for w, index in zip(weights, met, strict=True))
                tokens[destination] = whole / sum(weights)
                sizes[destination] = sum(sizes[index] for index in met)
                for index in sources:
                    del tokens[index], sizes[index]
        tokens = {
            index: token + block.mlp(block.layer_norm2(token)) for index, token in tokens.items()
        }
        history.append(dict(sizes))
    return tokens, sizes, history


def merged_features(model: Any, pixels: Tensor, trace: list[TraceEntry]) -> Tensor:
    """Projected features ``[images, placeholders, D]`` with zeros where a token was merged away."""
    (entry,) = [one for one in trace if one.place == "encoder"]
    assert entry.steps is not None
    images = [steps for sample in entry.steps for steps in sample]
    grids = [grid for sample in entry.grid for grid in sample]
    assert len(images) == len(pixels)
    lead = model.config.vision_config.model_type == "clip_vision_model"
    lead = lead and model.config.vision_feature_select_strategy == "full"
    features = []
    for image, (steps, grid) in enumerate(zip(images, grids, strict=True)):
        tokens, _, _ = merged_tower(
            model, pixels[image : image + 1], steps, entry.by_size, entry.proportional
        )
        full = torch.zeros(grid.size + lead, model.config.text_config.hidden_size)
        for index, token in tokens.items():
            if index >= 0 or lead:
                full[index + lead] = model.model.multi_modal_projector(token)
        features.append(full)
    return torch.stack(features)


@contextlib.contextmanager
def merged(model: Any, inputs: dict[str, Tensor], trace: list[TraceEntry]) -> Iterator[None]:
    """The unmodified model, its projector giving what the oracle computed."""
    if not any(entry.place == "encoder" for entry in trace):
        yield
        return
    with torch.no_grad():
        features = merged_features(model, inputs["pixel_values"], trace)
    handle = model.model.multi_modal_projector.register_forward_hook(lambda *_: features)
    try:
        yield
    finally:
        handle.remove()
