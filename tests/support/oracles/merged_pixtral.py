"""The oracle for methods that merge inside a Pixtral tower: the same pairs, merged by hand.

Nothing here uses the engine or the tower's own bookkeeping. One image at a time (images never meet
in this tower), one attention head at a time, tokens in a dictionary by their original index, each
with its square of patches, row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support.oracles.merged import Pairs, Seen, given, merge_pairs


def side_of(model: Any) -> int:
    """Patches along a side of a visual token."""
    return int(getattr(model.config, "spatial_merge_size", 1))


def turned(values: Tensor, places: Tensor, base: float) -> Tensor:
    """``[n, width]`` turned by rotary embedding: channel pairs ``(c, c + width / 2)``, the first
    half of them by the row, the others by the column; ``places [n, 2]``."""
    width = values.shape[1]
    quarter = width // 4
    found = values.clone()
    for pair in range(width // 2):
        column = pair >= quarter
        number = 2 * (pair - quarter) + 1 if column else 2 * pair
        angle = places[:, int(column)] * base ** (-2 * number / width)
        a, b = values[:, pair], values[:, pair + width // 2]
        found[:, pair] = a * angle.cos() - b * angle.sin()
        found[:, pair + width // 2] = b * angle.cos() + a * angle.sin()
    return found


def merged_image(
    model: Any,
    pixels: Tensor,
    choose: Callable[[Seen], Pairs | None],
    by_size: bool = True,
    proportional: bool = False,
) -> tuple[dict[int, Tensor], list[dict[int, int]]]:
    """Run the tower on one image (``pixels [3, h, w]`` without padding), merging the pairs that
    ``choose`` names at each block.

    Returns:
        the patches ``[patches, D]`` of what is left by original index, and behind every block how
        many original tokens each stands for.
    """
    tower, side = model.model.vision_tower, side_of(model)
    base = tower.config.rope_parameters["rope_theta"]
    embedded = tower.ln_pre(tower.patch_conv(pixels[None])[0].permute(1, 2, 0))  # [rows, cols, D]
    cols = embedded.shape[1] // side
    tokens, places = {}, {}
    for token in range(embedded.shape[0] // side * cols):
        row, col = token // cols * side, token % cols * side
        spots = [(row + y, col + x) for y in range(side) for x in range(side)]
        tokens[token] = torch.stack([embedded[spot] for spot in spots])
        places[token] = torch.tensor(spots)
    sizes = dict.fromkeys(tokens, 1)
    history = []
    for number, block in enumerate(tower.transformer.layers):
        order = list(tokens)
        here = torch.cat([tokens[token] for token in order])
        where = torch.cat([places[token] for token in order])
        logs = torch.tensor([float(sizes[token]) for token in order]).log() * proportional
        normed = block.attention_norm(here)
        query, key, value = (getattr(block.attention, f"{n}_proj")(normed) for n in ("q", "k", "v"))
        heads = block.attention.num_heads
        width = here.shape[1] // heads
        mixed, columns, plain, moved = [], [], [], []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            moved.append(turned(key[:, part], where, base))
            logits = turned(query[:, part], where, base) @ moved[-1].T / width**0.5
            weights = torch.exp(logits + logs.repeat_interleave(side**2))
            weights = weights / weights.sum(1, keepdim=True)
            mixed.append(weights @ value[:, part])
            columns.append(weights.sum(0))
            plain.append(key[:, part])
        here = here + block.attention.o_proj(torch.cat(mixed, dim=1))

        def each(parts: list[Tensor], count: int = len(order)) -> Tensor:
            return (sum(parts[1:], parts[0]) / len(parts)).unflatten(0, (count, -1))

        tokens = dict(zip(order, here.unflatten(0, (len(order), -1)), strict=True))
        seen = Seen(
            number,
            order,
            each(plain).mean(1),
            each(columns).sum(1),
            torch.stack([tokens[token].mean(0) for token in order]),
            each(moved).mean(1),
        )
        merge_pairs(tokens, sizes, choose(seen), by_size)
        tokens = {
            token: state + block.feed_forward(block.ffn_norm(state))
            for token, state in tokens.items()
        }
        history.append(dict(sizes))
    return tokens, history


def projected(model: Any, patches: Tensor) -> Tensor:
    """One token's ``patches [patches, D]`` as an embedding of the language model."""
    projector = model.model.multi_modal_projector
    if not hasattr(projector, "patch_merger"):
        return projector(patches)[0]  # type: ignore[no-any-return]
    normed = projector.norm(patches)
    joined = torch.stack([number for channel in normed.T for number in channel])
    joined = projector.patch_merger.merging_layer(joined)
    return projector.linear_2(projector.act(projector.linear_1(joined)))  # type: ignore[no-any-return]


def pixtral_features(model: Any, inputs: dict[str, Tensor], entry: Any) -> Tensor:
    """The projector's output ``[tokens, D]`` of all images, zeros where a token was merged away."""
    images = [steps for sample in entry.steps for steps in sample]
    found = []
    for pixels, size, steps in zip(
        inputs["pixel_values"], inputs["image_sizes"].tolist(), images, strict=True
    ):
        height, width = size
        own = pixels[:, :height, :width]
        tokens, _ = merged_image(model, own, given(steps), entry.by_size, entry.proportional)
        cell = model.config.vision_config.patch_size * side_of(model)
        full = torch.zeros((height // cell) * (width // cell), model.config.text_config.hidden_size)
        for token, patches in tokens.items():
            full[token] = projected(model, patches)
        found.append(full)
    return torch.cat(found)
