"""The filtering layers of many prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from prunus.calibrate.probe import Filtering, FilterProbe
from prunus.errors import PrunusError
from prunus.pruners.visipruner import VisiPruner
from prunus.run import prune


@torch.inference_mode()
def find_filtering(
    model: Any,
    batches: Iterable[Mapping[str, Any]],
    method: VisiPruner,
    step: Callable[[int], None] | None = None,
) -> list[Filtering]:
    """What the middle stage of ``method`` meets in every prompt, behind its shallow stage (if it is
    among ``method.stages``). Nothing is removed.

    Args:
        model: a supported model in evaluation mode.
        batches: arguments of its ``forward``, ``input_ids`` among them; an image in each prompt.
        method: its shallow stage and its ``layer_threshold`` count.
        step: called with the number of prompts after each batch.

    Returns:
        One for each prompt, in order.

    Raises:
        PrunusError: a prompt without an image, or too many shallow layers for this model.
    """
    shallow = replace(method, stages=tuple(s for s in method.stages if s == "shallow"))
    middle = replace(method, stages=("middle",))
    found: list[Filtering] = []
    for inputs in batches:
        count = len(inputs["input_ids"])
        probe = FilterProbe(middle)
        with prune(model, [shallow, probe]):
            model(**inputs, logits_to_keep=1)
        if blind := [row for row in range(count) if row not in probe.found]:
            raise PrunusError(
                f"prompt {len(found) + blind[0]} has no image: calibrate with images in all prompts"
            )
        found += [probe.found[row] for row in range(count)]
        if step is not None:
            step(count)
    return found
