"""Layer 0 of a built-in model once more, by itself: with other features, positions or masks.

What ``why_clse.py`` is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunus.analyse import Context
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import flat
from prunus.analyse.objects import shown
from prunus.grid import Grid
from prunus.results.stats import auroc
from prunus.signals.spectral import evolution, high_frequency
from prunus.signals.topk import stable_topk
from prunus.tasks.sets import EvalSet

KEEP = 1 / 9
Row = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """What enters layer 0, ``states [T, D]`` at ``positions``; which of it is visual, ``where
    [T]``; and which of the visual tokens show an object, ``objects [N]``."""

    states: Tensor
    positions: Tensor
    where: Tensor
    grid: Grid
    objects: NDArray[np.bool_]
    image: int

    @property
    def features(self) -> Tensor:
        """The visual tokens, ``[N, D]``."""
        return self.states[self.where]

    def showing(self, features: Tensor) -> Prompt:
        """The same prompt with other visual tokens at the same places."""
        states = self.states.clone()
        states[self.where] = features
        return replace(self, states=states)


def prompts(model: Any, processor: Any, data: EvalSet) -> list[Prompt]:
    """Every question of ``data``, up to the entrance of layer 0."""
    context = Context(model, processor, data, batch=1)
    decoder = model.model.language_model
    found: dict[int, Prompt] = {}
    for batch in context.batches:
        seen: dict[str, Any] = {}
        hooks = [
            decoder.layers[0].register_forward_pre_hook(
                lambda _, given, named, seen=seen: seen.update(
                    x=given[0] if given else named["hidden_states"]
                ),
                with_kwargs=True,
            ),
            decoder.rotary_emb.register_forward_pre_hook(
                lambda _, given, named, seen=seen: seen.update(p=[*given, *named.values()][1]),
                with_kwargs=True,
            ),
        ]
        with torch.inference_mode():
            model(**context.inputs(batch), logits_to_keep=1)
        for hook in hooks:
            hook.remove()
        number, grid = batch.queries[0], batch.shown[0].grid
        image = data.queries[number].image
        scene = data.scenes[image]
        assert isinstance(grid, Grid) and scene is not None
        where = batch.text["input_ids"][0] == model.config.image_token_id
        objects = shown(scene, grid)
        found[number] = Prompt(seen["x"][0].clone(), seen["p"], where, grid, objects, image)
    return [found[number] for number in sorted(found)]


@torch.inference_mode()
def through(
    model: Any, one: Prompt, sees: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Layer 0 on ``one``: what its attention adds to the visual tokens, and what they leave it as,
    ``[N, D]``. ``sees(where)`` is the mask ``[T, T]`` (default: causal); a token sees itself."""
    decoder = model.model.language_model
    causal = torch.ones(len(one.where), len(one.where), dtype=torch.bool).tril()
    mask = causal if sees is None else sees(one.where)
    mask = mask | torch.eye(len(mask), dtype=torch.bool)
    added: list[Tensor] = []
    hook = decoder.layers[0].self_attn.register_forward_hook(
        lambda _, given, out: added.append(out[0])
    )
    output = decoder.layers[0](
        one.states[None],
        attention_mask=torch.where(mask, 0.0, float("-inf"))[None, None],
        position_embeddings=decoder.rotary_emb(one.states[None], one.positions),
    )
    hook.remove()
    output = output[0] if isinstance(output, tuple) else output
    return added[0][0][one.where], output[0][one.where]


def two_way(where: Tensor) -> Tensor:
    """Visual tokens see those behind them, too."""
    return torch.ones(len(where), len(where)).tril().bool() | (where[:, None] & where)


def no_text(where: Tensor) -> Tensor:
    """Visual tokens see those before them, and no text."""
    return torch.ones(len(where), len(where)).tril().bool() & ~(where[:, None] & ~where)


def no_image(where: Tensor) -> Tensor:
    """Visual tokens see text and themselves."""
    return torch.ones(len(where), len(where)).tril().bool() & ~(where[:, None] & where)


def one_place(one: Prompt) -> Prompt:
    """All visual tokens at the position of the first."""
    positions = one.positions.clone()
    positions[..., one.where] = positions[..., one.where][..., :1]
    return replace(one, positions=positions)


def swapped(text: Prompt, other: Prompt, rows_and_columns: bool) -> Prompt:
    """The prompt of ``text`` about the visual tokens of ``other``."""
    first, count = int(text.where.int().argmax()), int(text.where.sum())
    features, grid = other.features, other.grid
    states = torch.cat([text.states[:first], features, text.states[first + count :]])
    where = torch.zeros(len(states), dtype=torch.bool)
    where[first : first + len(features)] = True
    positions = torch.arange(len(states))[None]
    if rows_and_columns:  # M-RoPE: time, row, column; text goes on behind the larger side
        row = torch.arange(grid.rows).repeat_interleave(grid.cols)
        place = torch.stack([torch.zeros_like(row), row, torch.arange(grid.cols).repeat(grid.rows)])
        rest = len(states) - first - len(features)
        after = torch.arange(rest) + first + max(grid.rows, grid.cols)
        parts = [torch.arange(first).expand(3, -1), place + first, after.expand(3, -1)]
        positions = torch.cat(parts, dim=1)[:, None]
    return Prompt(states, positions, where, grid, other.objects, other.image)


def place_parts(own: Sequence[Prompt]) -> Tensor:
    """What the features of each place have in common, ``[prompts, N, D]``: their mean over all
    *other* images, less its mean over places."""
    features = torch.stack([one.features for one in own])
    mean = (features.sum(0, keepdim=True) - features) / (len(features) - 1)
    return mean - mean.mean(dim=1, keepdim=True)


def content(states: Tensor, grid: Grid, cutoff: float = 0.1) -> Tensor:
    """CLSE's map S ``[N]``."""
    return high_frequency(states[None], grid, cutoff)[0]


def intensity(before: Tensor, after: Tensor, grid: Grid, cutoff: float = 0.1) -> Tensor:
    """CLSE's intensity ``[N]``."""
    maps = (content(states, grid, cutoff)[None] for states in (after, before))
    return evolution(*maps)[0]


def aligned(before: Tensor, after: Tensor, grid: Grid) -> Tensor:
    """Cosine ``[N]`` between the high-frequency part of a token and that of its change."""
    width, rows, cols = before.shape[1], grid.rows, grid.cols
    sharp = [_sharp(x.reshape(rows, cols, width)) for x in (before, after - before)]
    return torch.cosine_similarity(sharp[0], sharp[1], dim=-1).flatten()


def _sharp(field: Tensor) -> Tensor:
    """The high-frequency part itself, by the literal FFT."""
    rows, cols = field.shape[:2]
    across, down = (torch.fft.fftfreq(side, 1 / side) for side in (cols, rows))
    sigma = 0.1 * min(rows // 2, cols // 2)
    low = torch.exp(-(down[:, None] ** 2 + across**2) / (2 * sigma**2))
    return (
        field - torch.fft.ifft2(torch.fft.fft2(field, dim=(0, 1)) * low[..., None], dim=(0, 1)).real
    )


def found_by(own: Sequence[Prompt], scores: Sequence[Tensor]) -> Row:
    """How well scores find objects: AUROC, and the share of their tokens among the best ninth."""
    ranks, kept = [], []
    for one, score in zip(own, scores, strict=True):
        ranks.append(auroc(score.double().numpy(), one.objects))
        best = stable_topk(score, max(1, int(KEEP * len(score) + 1e-6)))
        kept.append(one.objects[best.numpy()].sum() / one.objects.sum())
    images = np.array([one.image for one in own], dtype=np.int64)
    values = {"auroc": np.array(ranks), "kept": np.array(kept)}
    return {
        k: v
        for name, of in values.items()
        for k, v in flat(name, mean_over_images(of, images)).items()
    }


def taken_apart(
    own: Sequence[Prompt], model: Any, sees: Callable[[Tensor], Tensor] | None = None
) -> Row:
    """Intensity of layer 0 on ``own``: how well it finds objects, what it is made of on objects and
    on background (content before, its growth, alignment), and its mean over background by row."""
    scores, rows = [], []
    sides: dict[str, list[float]] = {}
    for one in own:
        before, after = one.features, through(model, one, sees)[1]
        scores.append(intensity(before, after, one.grid))
        parts = {"content": content(before, one.grid), "after": content(after, one.grid)}
        parts |= {"aligned": aligned(before, after, one.grid)}
        parts["turn"] = content(after - before, one.grid)
        for name, values in parts.items():
            for side, mask in (("objects", one.objects), ("background", ~one.objects)):
                sides.setdefault(f"{name}_{side}", []).append(
                    float(values[torch.from_numpy(mask)].mean())
                )
        empty = np.where(one.objects, np.nan, scores[-1].numpy()).reshape(one.grid.rows, -1)
        rows.append(np.nanmean(empty, axis=1))
    means = {name: float(np.mean(values)) for name, values in sides.items()}
    return {**found_by(own, scores), **means, "by_row": np.nanmean(rows, axis=0).tolist()}


def interventions(
    models: Mapping[str, Any], own: Mapping[str, list[Prompt]], fine: list[Prompt]
) -> list[Row]:
    """Layer 0 of either model under what is changed, one thing at a time."""
    llava, qwen = own["tiny-llava"], own["tiny-qwen"]
    places = place_parts(llava)
    coarse = places.reshape(-1, 24, 24, places.shape[-1])[:, ::2, ::2].flatten(1, 2)
    noise = torch.randn(1, *coarse.shape[1:], generator=torch.Generator().manual_seed(0))
    grid = qwen[0].grid
    noise *= content(coarse[0], grid).mean() / content(noise[0], grid).mean()
    pool = [one.features.reshape(12, 2, 12, 2, -1).mean((1, 3)).flatten(0, 1) for one in llava]
    pooled_llava = [
        swapped(one, replace(q, states=q.showing(p).states), False)
        for one, q, p in zip(llava, qwen, pool, strict=True)
    ]
    bare = [one.showing(one.features - p) for one, p in zip(llava, places, strict=True)]
    coded = [one.showing(one.features + p) for one, p in zip(qwen, coarse, strict=True)]
    noisy = [one.showing(one.features + noise[0]) for one in qwen]
    cases: list[tuple[str, str, Sequence[Prompt], Callable[[Tensor], Tensor] | None]] = [
        ("tiny-llava", "as it is", llava, None),
        (
            "tiny-llava",
            "features of tiny-qwen",
            [swapped(a, b, False) for a, b in zip(llava, qwen, strict=True)],
            None,
        ),
        ("tiny-llava", "features without what a place has in common", bare, None),
        ("tiny-llava", "features of 2x2 tokens averaged", pooled_llava, None),
        (
            "tiny-llava",
            "features twice as large",
            [one.showing(2 * one.features) for one in llava],
            None,
        ),
        ("tiny-llava", "visual tokens at one position", [one_place(one) for one in llava], None),
        ("tiny-llava", "no attention among visual tokens", llava, no_image),
        ("tiny-llava", "no attention to text", llava, no_text),
        ("tiny-llava", "attention both ways", llava, two_way),
        ("tiny-qwen", "as it is", qwen, None),
        (
            "tiny-qwen",
            "features of tiny-llava",
            [swapped(b, a, True) for a, b in zip(llava, qwen, strict=True)],
            None,
        ),
        ("tiny-qwen", "features with tiny-llava's places added", coded, None),
        ("tiny-qwen", "features with one fixed noise added", noisy, None),
        ("tiny-qwen", "20x20 tokens (384 pixels)", fine, None),
        (
            "tiny-qwen",
            "features twice as large",
            [one.showing(2 * one.features) for one in qwen],
            None,
        ),
        ("tiny-qwen", "visual tokens at one position", [one_place(one) for one in qwen], None),
        ("tiny-qwen", "no attention among visual tokens", qwen, no_image),
        ("tiny-qwen", "no attention to text", qwen, no_text),
        ("tiny-qwen", "attention both ways", qwen, two_way),
        ("tiny-qwen", "fixed noise, attention both ways", noisy, two_way),
    ]
    return [
        {"model": name, "changed": changed, **taken_apart(given, models[name], sees)}
        for name, changed, given, sees in cases
    ]
