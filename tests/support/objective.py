"""An objective of the selector's training on made-up features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from prunus.families import family_of
from prunus.selector.config import SelectorConfig, TrainSettings
from prunus.selector.selector import Selector
from prunus.train.data import Batch
from prunus.train.objective import Objective
from prunus.train.schedule import Schedule
from tests.support.models import Case

STATE = Schedule(text_gate=0.7, temperature=0.5)


SMALL: dict[str, Any] = {
    "width": 16,
    "heads": 2,
    "decoder_layers": 1,
    "min_steps": 1,
    "stop_bias": -1.0,
    "max_share": 0.4,
}


VISUAL = (100, 101)


def batch_of(case: Case, *images: int, answer: int = 3) -> Batch:
    """Right-padded prompts; the last ``answer`` tokens are what is learned, and the question is
    what stands between the last image and them."""
    inputs = case.prompts.rows(*images)
    pads = (inputs["attention_mask"] == 0).sum(1).tolist()
    for name in {"input_ids", "attention_mask", "mm_token_type_ids"} & set(inputs):
        rows = zip(inputs[name], pads, strict=True)
        inputs[name] = torch.stack([row.roll(-n) for row, n in rows])
    ids, labels = inputs["input_ids"], torch.full_like(inputs["input_ids"], -100)
    question = torch.zeros_like(ids, dtype=torch.bool)
    for row, pad in enumerate(pads):
        end = ids.shape[1] - pad
        last = max(place for place, token in enumerate(ids[row].tolist()) if token in VISUAL)
        labels[row, end - answer : end] = ids[row, end - answer : end]
        question[row, last + 2 : end - answer] = True
    return Batch(inputs, labels, question)


def objective_for(case: Case, **settings: Any) -> Objective:
    """An objective with weights that have preferences, and a denoiser that does something."""
    family = family_of(case.model)
    chosen = TrainSettings(**{**settings, "selector": {**SMALL, **settings.get("selector", {})}})
    torch.manual_seed(1)
    config = SelectorConfig(family.feature_width, family.text_width, **chosen.selector)
    made = Objective(case.model, family, Selector(config), chosen)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    return made.train()


@contextmanager
def alphas(objective: Objective) -> Iterator[list[Tensor]]:
    """The weights that the gate is given."""
    seen: list[Tensor] = []
    handle = objective.gate.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    try:
        yield seen
    finally:
        handle.remove()


def features_of(case: Case, inputs: dict[str, Tensor]) -> list[list[Tensor]]:
    """``[row][image]``: what a selector reads, from the unmodified tower, row by row; in LLaVA with
    the CLS row in front of it where the model passes that on."""
    model, found = case.model.model, []
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        own = case.prompts.one(inputs, row)
        if not hasattr(model, "visual"):
            states = model.vision_tower(own["pixel_values"], output_hidden_states=True)
            skip = int(model.config.vision_feature_select_strategy == "default")
            found.append(list(states.hidden_states[-2][:, skip:]))
            continue
        parts = {}
        for token, kind, name in zip(
            VISUAL, ("image", "video"), ("pixel_values", "pixel_values_videos"), strict=True
        ):
            if name in own:
                parts[token] = model.visual(own[name], own[f"{kind}_grid_thw"]).pooler_output
        rows = []
        for places in images:
            token = int(own["input_ids"][0, places[0]])
            rows.append(parts[token][: len(places)])
            parts[token] = parts[token][len(places) :]
        found.append(rows)
    return found
