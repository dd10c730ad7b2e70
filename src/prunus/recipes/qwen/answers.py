"""Second training stage: the language model learns to answer from visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from prunus.recipes.answers import score_answers
from prunus.recipes.dialogue import Packed, pack
from prunus.recipes.qwen.decoder import STYLE, decode, places
from prunus.recipes.qwen.naming import Hints
from prunus.recipes.qwen.probe import changes
from prunus.recipes.qwen.tower import project
from prunus.tasks.pictures import (
    VIDEO_SIDES,
    draw_size,
    image_pixels,
    video_pixels,
)
from prunus.tasks.questions import ask_many
from prunus.tasks.scenes import Scene, make_scene, object_coverage
from prunus.tasks.video_questions import ask_many_video
from prunus.tasks.videos import FRAMES, SLICE, VideoScene, actor_coverage, make_video

#: Scenes of this stage have seeds that the first stage does not use.
_SEED_BASE = 1_000_000_000
#: Batches that are encoded at once, to be asked about several times.
POOL = 8
#: The layer before which visual tokens are asked where they are and what has changed there.
_PROBE = 4
_PROBE_WEIGHT = 0.3

#: Positions from slice to slice. Two is what the frame rate of the drawn videos gives; processors
#: that are told no rate assume a high one, and leave none.
_INTERVALS, _INTERVAL_SHARES = (2, 1, 0), (0.75, 0.1, 0.15)

Grid = tuple[int, int, int]  # slices, rows and columns of visual tokens


@dataclass
class Batch:
    """Images of one size, or videos of one size, with their pixels."""

    items: Sequence[Scene | VideoScene]
    grid: Grid
    pixels: Tensor  # (b * slices, 3, 2, h, w) float32
    interval: int = 2  # between slices, in positions


def draw_batch(
    number: int, count: int, cell: int, objects: tuple[int, int], videos: float
) -> Batch:
    """``count`` fresh training images, or (by a share ``videos``) as many videos."""
    rng = np.random.default_rng([number, 10])
    first = _SEED_BASE + number * count
    if rng.random() < videos:
        side = int(rng.choice(VIDEO_SIDES))
        moving = [make_video(first + i) for i in range(count)]
        grid = (FRAMES // SLICE, side // cell, side // cell)
        interval = int(rng.choice(_INTERVALS, p=_INTERVAL_SHARES))
        return Batch(moving, grid, video_pixels(moving, side), interval)
    size = draw_size(rng)
    scenes = [make_scene(first + i, "train", objects) for i in range(count)]
    return Batch(scenes, (1, size[0] // cell, size[1] // cell), image_pixels(scenes, size))


def encode(model: Qwen2_5_VLForConditionalGeneration, batch: Batch, at_once: int = 32) -> Tensor:
    """Visual tokens of a batch, ``(b, n, width)``."""
    parts = [
        project(model, batch.pixels[at : at + at_once].to(model.device))
        for at in range(0, len(batch.pixels), at_once)
    ]
    return torch.cat(parts).flatten(0, 1).view(len(batch.items), -1, parts[0].shape[-1])


def ink(batch: Batch) -> list[np.ndarray]:
    """Which tokens of each image or video show any object, ``(n,)`` bool."""
    _, rows, cols = batch.grid
    found = []
    for item in batch.items:
        cover = (
            actor_coverage(item, rows, cols)
            if isinstance(item, VideoScene)
            else object_coverage(item, rows, cols)
        )
        found.append(cover.any(axis=0).ravel())
    return found


def choose(batch: Batch, tokens: int, rng: np.random.Generator) -> Tensor:
    """``tokens`` tokens of each item, ascending, ``(b, tokens)`` int64: those with ink first,
    then random background."""
    rows = []
    for shown in ink(batch):
        order = np.argsort(rng.random(shown.size) - shown)
        rows.append(np.sort(order[:tokens]))
    return torch.from_numpy(np.stack(rows))


def ask_all(batch: Batch, questions: int, step: int, rng: np.random.Generator) -> Packed:
    """Questions for a batch, packed. Different for every step."""
    asked = []
    for index, item in enumerate(batch.items):
        seed = step * len(batch.items) + index
        asked.append(
            ask_many_video(item, questions, seed)
            if isinstance(item, VideoScene)
            else ask_many(item, questions, seed, captions=0.1)
        )
    return pack(asked, max(batch.grid[1:]), rng, style=STYLE)


def answer_loss(
    model: Qwen2_5_VLForConditionalGeneration,
    hints: Hints,
    batch: Batch,
    features: Tensor,
    text: Packed,
    chosen: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the answers' tokens, and the share of right answers for each type.

    To it comes what an early layer knows of places and times (``hints.probe``). ``chosen``
    ``(b, k)`` int64 are the tokens shown.
    """
    device = features.device
    at = places(batch.grid, batch.interval).to(device)[:, None].expand(-1, len(features), -1)
    videos = [item for item in batch.items if isinstance(item, VideoScene)]
    change = changes(videos, *batch.grid[1:]).to(device) if videos else None
    if chosen is not None:
        features = features.gather(1, chosen[..., None].expand(-1, -1, features.shape[-1]))
        at = at.gather(2, chosen.expand(3, -1, -1))
        change = None if change is None else change.gather(1, chosen)
    depth = min(_PROBE, len(model.model.language_model.layers) - 1)
    hidden, seen = decode(model, features, at, max(batch.grid[1:]), text, depth)
    loss, report = score_answers(model.lm_head, hidden, text)
    assert seen is not None
    probe, found = hints.probe.loss(seen, at, batch.grid, change)
    report |= found
    prefix = "" if batch.grid[0] == 1 else "video-"
    return loss + _PROBE_WEIGHT * probe, {prefix + name: v for name, v in report.items()}
