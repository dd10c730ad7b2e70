"""CLSE's choice, read literally."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.literal.spectral import literal_map
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.masked import visibility
from tests.support.oracles.merged import merged
from tests.support.runs import masked_logits


def states_and_attention(
    case: Case, inputs: dict[str, Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    case.model.set_attn_implementation("eager")
    with torch.no_grad():
        out = case.model(**inputs, output_hidden_states=True, output_attentions=True)
    case.model.set_attn_implementation("sdpa")
    return out.hidden_states, out.attentions


def literal_intensity(
    current: Tensor, reference: Tensor, grid: tuple[int, int, int], cutoff: float
) -> list[float]:
    now = literal_map(current, *grid, cutoff).tolist()
    then = literal_map(reference, *grid, cutoff).tolist()
    mean = sum(then) / len(then)
    return [min(abs(a - b) / (b + mean + 1e-6), 1.0) for a, b in zip(now, then, strict=True)]


def best(scores: list[float], count: int) -> list[int]:
    """The ``count`` highest, ties by lower index, ascending."""
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], n))
    return sorted(order[:count])


def first_stage(run: Any, row: int, image: int) -> tuple[list[int], list[float]]:
    """What the first cut kept of an image, and its scores."""
    entry = run.trace[0]
    return entry.kept[row][image].tolist(), entry.scores[row][image].tolist()


def states_of(case: Case, inputs: dict[str, Tensor], entry: Any) -> list[Tensor]:
    """Inputs of the first two decoder layers ``[B, L, D]``: tokens merged by hand in the tower, the
    places of merged ones hidden by masks."""
    spots = case.prompts.spots(inputs["input_ids"])
    mask = inputs["attention_mask"]
    visible = visibility([entry], spots, mask, DEPTH, mask.shape[1])
    seen: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        for layer in case.model.get_decoder().layers[:2]
    ]
    with merged(case.model, inputs, [entry]):
        masked_logits(case.model, inputs, visible, [])
    for handle in handles:
        handle.remove()
    return seen
