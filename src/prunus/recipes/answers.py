"""Second training stage: the language model learns to answer from visual tokens."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from prunus.recipes.decoder import decode
from prunus.recipes.dialogue import IGNORE, Packed, pack
from prunus.recipes.tower import project
from prunus.tasks.pictures import normalise
from prunus.tasks.questions import ask_many
from prunus.tasks.scenes import Scene, make_scene, object_mask, render_array

#: Scenes of this stage have seeds that the first stage does not use.
_SEED_BASE = 1_000_000_000
_POOL_BATCHES = 8


@dataclass
class Pool:
    """Scenes whose patches were encoded once, to be asked about several times."""

    scenes: list[Scene]
    features: Tensor  # (scenes, side * side, width), bfloat16 on CPU to save memory


def draw_scenes(number: int, count: int, objects: tuple[int, int]) -> list[Scene]:
    """``count`` fresh training scenes; ``number`` tells batches apart."""
    first = _SEED_BASE + number * count
    return [make_scene(first + i, "train", objects) for i in range(count)]


def pixels_of(scenes: list[Scene]) -> Tensor:
    """Normalised pixels ``(b, 3, 192, 192)`` float32."""
    return normalise(torch.from_numpy(np.stack([render_array(scene) for scene in scenes])))


@torch.no_grad()
def fill_pool(
    model: LlavaForConditionalGeneration, number: int, batch: int, objects: tuple[int, int]
) -> Pool:
    """Encode pool ``number``: enough scenes for several batches."""
    scenes = draw_scenes(number, batch * _POOL_BATCHES, objects)
    device = model.device
    parts = []
    for at in range(0, len(scenes), 16):
        pixels = pixels_of(scenes[at : at + 16]).to(device)
        parts.append(project(model, pixels, all_places(model, len(pixels))).bfloat16())
    return Pool(scenes, torch.cat(parts))


def all_places(model: LlavaForConditionalGeneration, batch: int) -> Tensor:
    """Indices of all patches of the canvas, ``(batch, n)`` int64."""
    vision = model.config.vision_config
    count = (vision.image_size // vision.patch_size) ** 2
    return torch.arange(count, device=model.device).expand(batch, -1)


def pool_slot(step: int, reuse: int) -> tuple[int, int, int]:
    """Pool number, round in the pool, and batch within the round of a training step."""
    number, rest = divmod(step, reuse * _POOL_BATCHES)
    return number, *divmod(rest, _POOL_BATCHES)


def pool_batch(pool: Pool, number: int, turn: int, slot: int) -> tuple[list[Scene], Tensor]:
    """One batch of a round: rounds go through the pool in different orders."""
    size = len(pool.scenes) // _POOL_BATCHES
    order = np.random.default_rng([number, turn, 4]).permutation(len(pool.scenes))
    chosen = order[slot * size : (slot + 1) * size]
    return [pool.scenes[i] for i in chosen], pool.features[torch.from_numpy(chosen)].float()


def draw_tokens(least: int, most: int, rng: np.random.Generator) -> int:
    """A number of tokens from ``least`` to ``most``, evenly in its logarithm."""
    if most <= least:
        return least
    return min(most, int(least * ((most + 1) / least) ** rng.random()))


def choose_places(scenes: list[Scene], side: int, tokens: int, rng: np.random.Generator) -> Tensor:
    """``tokens`` patches of each canvas, ascending: those with ink, then random background."""
    rows = []
    for scene in scenes:
        ink = object_mask(scene, side, side).any(axis=0).ravel()
        order = np.argsort(rng.random(ink.size) - ink)
        rows.append(np.sort(order[:tokens]))
    return torch.from_numpy(np.stack(rows))


def ask_all(
    scenes: list[Scene], questions: int, step: int, visual: int, rng: np.random.Generator
) -> Packed:
    """Questions for a batch, packed. Different for every step."""
    asked = [
        ask_many(scene, questions, seed=step * len(scenes) + i, captions=0.12)
        for i, scene in enumerate(scenes)
    ]
    return pack(asked, visual, rng)


def answer_loss(
    model: LlavaForConditionalGeneration, features: Tensor, places: Tensor, text: Packed
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the answers' tokens, and the share of right answers for each type."""
    return score_answers(model.lm_head, decode(model, features, places, text), text)


def score_answers(head: nn.Module, hidden: Tensor, text: Packed) -> tuple[Tensor, dict[str, float]]:
    """As :func:`answer_loss`, from the last hidden states ``(b, t, width)`` of the text."""
    asked = text.labels != IGNORE
    labels, logits = text.labels[asked], head(hidden[asked]).float()
    loss = nn.functional.cross_entropy(logits, labels)
    hit = (logits.detach().argmax(-1) == labels).float()
    ones = torch.ones(len(text.types), device=labels.device)
    right = ones.scatter_reduce(0, text.question[asked], hit, "amin").tolist()
    scores: dict[str, list[float]] = defaultdict(list)
    for name, score in zip(text.types, right, strict=True):
        scores[name].append(score)
    report = {name: float(np.mean(v)) for name, v in sorted(scores.items())}
    report["mean"] = float(np.mean([v for name, v in report.items() if name != "caption"]))
    return loss, report
