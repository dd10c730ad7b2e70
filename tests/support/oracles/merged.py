"""The oracle for methods that merge inside the vision tower: the same pairs, merged by hand.

Nothing here uses the engine. One image at a time, attention head by head as the formula has it,
tokens in a dictionary by their original index.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus import TraceEntry

Pairs = tuple[list[int], list[int]]


@dataclass
class Seen:
    """What a merging block offers: original indices of its tokens (no CLS), and for each of them
    the head-mean of its keys, the attention it receives, and its state behind the attention; where
    keys are turned by their places, also those."""

    block: int
    order: list[int]
    keys: Tensor
    received: Tensor
    states: Tensor
    turned: Tensor | None = None


def attention(block: Any, states: Tensor, log_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Literal softmax attention of a CLIP or SigLIP block: output ``[S, D]``, maps ``[H, S, S]``
    and head-mean keys ``[S, d]``."""
    module = block.self_attn
    width = module.head_dim
    query, key, value = (getattr(module, f"{name}_proj")(states) for name in ("q", "k", "v"))
    mixed, maps, keys = [], [], []
    for head in range(module.num_heads):
        part = slice(head * width, (head + 1) * width)
        logits = query[:, part] @ key[:, part].T / width**0.5 + log_sizes
        maps.append(torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True))
        mixed.append(maps[-1] @ value[:, part])
        keys.append(key[:, part])
    mean = sum(keys[1:], keys[0]) / len(keys)
    return module.out_proj(torch.cat(mixed, dim=1)), torch.stack(maps), mean


def merge_pairs(
    tokens: dict[int, Tensor], sizes: dict[int, int], pairs: Pairs | None, by_size: bool
) -> None:
    """Merge ``pairs`` (sources, destinations) in place: the mean of the original tokens, or of
    those that meet."""
    into: dict[int, list[int]] = {}
    for source, destination in zip(*(pairs or ([], [])), strict=True):
        into.setdefault(destination, []).append(source)
    for destination, sources in into.items():
        met = [destination, *sources]
        weights = [sizes[index] if by_size else 1 for index in met]
        whole = sum(w * tokens[index] for w, index in zip(weights, met, strict=True))
        tokens[destination] = whole / sum(weights)
        sizes[destination] = sum(sizes[index] for index in met)
        for index in sources:
            del tokens[index], sizes[index]


def merged_tower(
    model: Any,
    pixels: Tensor,
    choose: Callable[[Seen], Pairs | None],
    by_size: bool = True,
    proportional: bool = False,
    tower: Any = None,
) -> tuple[dict[int, Tensor], list[dict[int, int]]]:
    """Run the ``tower`` (default: the only one) on one image ``[1, 3, h, w]``, merging the pairs
    (sources, destinations; original indices) that ``choose`` names at each block.

    Returns:
        features of what is left by original index (-1: CLS), and behind every block how many
        original tokens each stands for.
    """
    core, config = model.model, model.config
    tower = tower or getattr(core, "vision_tower", None) or core.vision_model
    has_cls = config.vision_config.model_type == "clip_vision_model"
    states = tower.embeddings(pixels)
    if has_cls:
        states = tower.pre_layrnorm(states)
    tokens = {number - has_cls: states[0, number] for number in range(states.shape[1])}
    sizes = dict.fromkeys(tokens, 1)
    history = []
    last = getattr(config, "vision_feature_layer", None)  # None: the last, and a norm behind it
    assert last in (-1, -2, None)  # of -2 the last block is not read
    read = len(tower.encoder.layers) + (0 if last is None else 1 + last)
    for number, block in enumerate(tower.encoder.layers[:read]):
        order = list(tokens)
        here = torch.stack([tokens[index] for index in order])
        logs = torch.tensor([float(sizes[index]) for index in order]).log() * proportional
        added, maps, keys = attention(block, block.layer_norm1(here), logs.to(here.dtype))
        here = here + added
        tokens = dict(zip(order, here, strict=True))
        received = maps.mean(0).mean(0)
        seen = Seen(number, order[has_cls:], keys[has_cls:], received[has_cls:], here[has_cls:])
        merge_pairs(tokens, sizes, choose(seen), by_size)
        tokens = {
            index: token + block.mlp(block.layer_norm2(token)) for index, token in tokens.items()
        }
        history.append({index: size for index, size in sizes.items() if index >= 0})
    if last is None:
        tokens = {index: tower.post_layernorm(token) for index, token in tokens.items()}
    return tokens, history


def given(steps: list[Any]) -> Callable[[Seen], Pairs | None]:
    """The choice that a trace's steps tell of."""
    pairs = {block: (source.tolist(), destination.tolist()) for block, source, destination in steps}
    return lambda seen: pairs.get(seen.block)


def merged_features(model: Any, pixels: Tensor, trace: list[TraceEntry]) -> Tensor:
    """Projected features ``[images, placeholders, D]`` with zeros where a token was merged away."""
    (entry,) = [one for one in trace if one.place == "encoder"]
    assert entry.steps is not None
    images = [steps for sample in entry.steps for steps in sample]
    grids = [grid for sample in entry.grid for grid in sample]
    assert len(images) == len(pixels)
    projector = getattr(model.model, "aligner", None) or model.model.multi_modal_projector
    lead = model.config.vision_config.model_type == "clip_vision_model"
    lead = lead and model.config.vision_feature_select_strategy == "full"
    features = []
    for image, (steps, grid) in enumerate(zip(images, grids, strict=True)):
        one = pixels[image : image + 1]
        tokens, _ = merged_tower(model, one, given(steps), entry.by_size, entry.proportional)
        full = torch.zeros(
            grid.size + lead, model.config.text_config.hidden_size, dtype=model.dtype
        )
        for index, token in tokens.items():
            if index >= 0 or lead:
                full[index + lead] = projector(token)
        features.append(full)
    return torch.stack(features)


@contextlib.contextmanager
def merged(model: Any, inputs: dict[str, Tensor], trace: list[TraceEntry]) -> Iterator[None]:
    """The unmodified model, its vision tower giving what the oracle computed."""
    inside = [entry for entry in trace if entry.place == "encoder"]
    if not inside:
        yield
        return
    with torch.no_grad():
        if hasattr(model.model, "visual"):
            from tests.support.oracles.merged_windows import window_features

            parts = iter(window_features(model, inputs, inside[0]).values())

            def replaced(module: Any, args: Any, output: Any) -> Any:
                output.pooler_output, *early = next(parts)
                if early:
                    output.deepstack_features = early
                return output

            handle = model.model.visual.register_forward_hook(replaced)
        elif hasattr(model.model, "aligner"):
            features = merged_features(model, inputs["pixel_values"], trace)
            handle = model.model.aligner.register_forward_hook(lambda *_: features)
        elif hasattr(model.model, "connector"):
            from tests.support.oracles.merged_tiles import squares

            features = squares(model, inputs, inside[0])
            handle = model.model.connector.register_forward_hook(lambda *_: features)
        elif hasattr(model.model, "vision_model") or hasattr(model.model, "mm_projector"):
            from tests.support.oracles.merged_windows import window_features

            outputs = iter(window_features(model, inputs, inside[0]).values())

            def instead(module: Any, args: Any, output: Tensor) -> Tensor:
                (features,) = next(outputs)
                return features.view_as(output)

            projector = getattr(model.model, "projector", None) or model.model.mm_projector
            handle = projector.register_forward_hook(instead)
        elif hasattr(model.model, "video_tower"):
            from tests.support.oracles.merged_frames import frame_features

            frames = iter(frame_features(model, inputs, inside[0]).values())
            projector = model.model.multi_modal_projector
            handle = projector.register_forward_hook(lambda *_: next(frames))
        else:
            if model.config.vision_config.model_type == "pixtral":
                from tests.support.oracles.merged_pixtral import pixtral_features

                features = pixtral_features(model, inputs, inside[0])
            elif model.config.vision_config.model_type == "internvl_vision":
                from tests.support.oracles.merged_tiles import tile_features

                features = tile_features(model, inputs, inside[0])
            else:
                features = merged_features(model, inputs["pixel_values"], trace)
            projector = model.model.multi_modal_projector
            handle = projector.register_forward_hook(lambda *_: features)
    try:
        yield
    finally:
        handle.remove()
