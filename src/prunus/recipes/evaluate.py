"""Accuracy of a built-in model on the fixed set, and whether the task tells selections apart.

An answer counts when greedy decoding would produce it exactly. That is the case when every token
of the true answer (with its end token) is the most likely one given those before it, which one
forward pass over question and answer shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from prunus.pruners.uniform import lattice
from prunus.recipes.answers import all_places, pixels_of
from prunus.recipes.decoder import decode
from prunus.recipes.dialogue import IGNORE, pack
from prunus.recipes.tower import project
from prunus.results.stats import wilson
from prunus.tasks.evalset import Item
from prunus.tasks.questions import Question
from prunus.tasks.scenes import Scene, ground_truth_tokens

#: Chooses visual tokens: scene, question, running number of the question -> ascending indices.
Choice = Callable[[Scene, Question, int], np.ndarray]
#: Type of question -> for each of them, whether the answer was right.
Outcome = dict[str, list[bool]]


@torch.no_grad()
def encode_scenes(
    model: LlavaForConditionalGeneration, scenes: Sequence[Scene], batch: int = 16
) -> Tensor:
    """Projected patches ``(scenes, n, width)`` float32."""
    parts = []
    for at in range(0, len(scenes), batch):
        pixels = pixels_of(list(scenes[at : at + batch])).to(model.device)
        parts.append(project(model, pixels, all_places(model, len(pixels))))
    return torch.cat(parts)


@torch.no_grad()
def grey_scene(model: LlavaForConditionalGeneration) -> Tensor:
    """Projected patches ``(n, width)`` of an image of mean grey: pixels that normalise to 0."""
    size = model.config.vision_config.image_size
    blank = torch.zeros(1, 3, size, size, device=model.device)
    return project(model, blank, all_places(model, 1))[0]


@torch.no_grad()
def answers_right(
    model: LlavaForConditionalGeneration,
    items: Sequence[Item],
    features: Tensor,
    choice: Choice | None = None,
    batch: int = 16,
) -> Outcome:
    """Ask every question of ``items``; row i of ``features`` belongs to item i.

    With ``choice`` each question keeps only the chosen visual tokens from layer 1 on; without,
    questions about one image share a forward pass (they do not see each other).
    """
    rng = np.random.default_rng(0)
    if choice is None:
        rows = [(i, list(item.questions)) for i, item in enumerate(items) if item.questions]
    else:
        rows = [(i, [question]) for i, item in enumerate(items) for question in item.questions]
    outcome: Outcome = defaultdict(list)
    for at in range(0, len(rows), batch):
        part = rows[at : at + batch]
        seen = features[[i for i, _ in part]]
        text = pack([q for _, q in part], seen.shape[1], rng, turns=0).to(str(model.device))
        keep = None
        if choice is not None:
            kept = [choice(items[i].scene, q[0], at + n) for n, (i, q) in enumerate(part)]
            keep = torch.from_numpy(np.stack(kept)).to(model.device)
        hidden = decode(model, seen, all_places(model, len(part)), text, keep)
        asked = text.labels != IGNORE
        hit = (model.lm_head(hidden[asked]).argmax(-1) == text.labels[asked]).float()
        ones = torch.ones(len(text.types), device=hit.device)
        right = ones.scatter_reduce(0, text.question[asked], hit, "amin").tolist()
        for kind, value in zip(text.types, right, strict=True):
            outcome[kind].append(value > 0.5)
    return dict(outcome)


def summary(outcome: Outcome) -> dict[str, dict[str, float | int]]:
    """Counts, accuracy and interval, for each type and ``overall``."""
    table: dict[str, dict[str, float | int]] = {}
    everything = [value for values in outcome.values() for value in values]
    for kind, values in [("overall", everything), *sorted(outcome.items())]:
        share = wilson(sum(values), len(values))
        table[kind] = {
            "questions": len(values),
            "right": sum(values),
            "accuracy": round(share.value, 4),
            "low": round(share.low, 4),
            "high": round(share.high, 4),
        }
    return table


def ground_truth_choice(keep: int, side: int) -> Choice:
    """The all-knowing choice: objects asked about first."""
    return lambda scene, question, _: ground_truth_tokens(scene, question.objects, keep, side, side)


def random_choice(keep: int, side: int, seed: int = 0) -> Choice:
    """Uniformly random tokens, others for every question."""

    def choose(scene: Scene, question: Question, number: int) -> np.ndarray:
        rng = np.random.default_rng([seed, number])
        return np.sort(rng.choice(side * side, min(keep, side * side), replace=False))

    return choose


def uniform_choice(keep: int, side: int) -> Choice:
    """An even lattice of tokens, the same for every question."""
    chosen = lattice(min(keep, side * side), side, side).numpy()
    return lambda scene, question, number: chosen
