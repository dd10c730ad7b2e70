"""VisiPruner's L2 threshold, which is tied to the scale of a model's values."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from prunus.calibrate.filtering import find_filtering
from prunus.calibrate.probe import Filtering
from prunus.calibrate.threshold import threshold_for
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.method.calibration import Calibration, made_on
from prunus.pruners.visipruner import VisiPruner


def calibrate_visipruner(
    model: Any,
    name: str,
    batches: Iterable[Mapping[str, Any]],
    method: VisiPruner,
    *,
    target: float = 10.0,
    step: Callable[[int], None] | None = None,
) -> Calibration:
    """Find the ``tokens_threshold`` at which VisiPruner keeps ``target`` tokens on average.

    The paper (arXiv 2510.17205) gives 0.2 for LLaVA-1.5-7B, where 10.3 of 576 tokens are left, and
    no other model's. Here the mean count over prompts with a filtering layer is met exactly, up to
    rounding to whole tokens and equal values: with P such prompts, ``target * P`` of all their L2
    changes, put together, exceed the threshold.

    Args:
        model: a supported model in evaluation mode.
        name: what to call it in the file.
        batches: arguments of its ``forward``, ``input_ids`` among them; an image in each prompt.
        method: its shallow stage (if it is among ``method.stages``), its number of shallow layers
            and its ``layer_threshold`` count.
        target: mean number of visual tokens to keep, all images of a prompt together.
        step: called with the number of prompts after each batch.

    Returns:
        ``params``: ``tokens_threshold``, ``layer_threshold`` and ``shallow_layers``; ``measured``:
        ``prompts``; ``triggered``, the share of them that have a filtering layer; ``target``;
        ``visual_tokens``, the mean per prompt; ``kept``, statistics over triggered prompts;
        ``filtering_layers``, how many prompts per layer; ``output``, the mean L2 norm of the whole
        attention output in those layers; ``relative``, the threshold as a share of it, for
        ``VisiPruner(relative=...)``.

    Raises:
        PrunusError: no prompt has a filtering layer, a target beyond what there is, a prompt
            without an image, no prompts, too many shallow layers.
    """
    family = family_of(model)
    depth = len(family.layers)
    found = find_filtering(model, batches, method, step)
    if not found:
        raise PrunusError("there are no prompts to calibrate with")
    triggered = [one for one in found if one.layer is not None]
    _check_triggered(found, len(triggered), method.filter_below)
    changes = [one.change.numpy() for one in triggered]
    pooled = np.concatenate(changes)
    threshold = threshold_for(pooled, _count(target, len(triggered), len(pooled)))
    kept = [int((own > np.float32(threshold)).sum()) for own in changes]
    output = float(np.mean([one.output for one in triggered]))
    layers = Counter(one.layer for one in triggered if one.layer is not None)
    return Calibration(
        method=VisiPruner.name,
        model=name,
        depth=depth,
        params={
            "tokens_threshold": threshold,
            "layer_threshold": method.filter_below,
            "shallow_layers": method.shallow(depth),
        },
        measured={
            "prompts": len(found),
            "triggered": len(triggered) / len(found),
            "target": target,
            "visual_tokens": float(np.mean([len(one.change) for one in found])),
            "kept": {
                "mean": float(np.mean(kept)),
                "median": float(np.median(kept)),
                "min": min(kept),
                "max": max(kept),
            },
            "filtering_layers": {str(layer): layers[layer] for layer in sorted(layers)},
            "output": output,
            "relative": threshold / output,
        },
        made_on=made_on(family),
    )


def _check_triggered(found: Sequence[Filtering], triggered: int, bound: float) -> None:
    """Refuse if no prompt has a filtering layer, and warn if some have none."""
    lowest = min(one.lowest for one in found)
    if not triggered:
        raise PrunusError(
            f"in none of {len(found)} prompts does any layer reach a cosine below "
            f"layer_threshold={bound}: the lowest is {lowest:.6f}. Choose a layer_threshold "
            "above it, or fewer shallow layers"
        )
    if triggered < len(found):
        warnings.warn(
            f"prunus: {len(found) - triggered} of {len(found)} prompts have no filtering layer at "
            f"layer_threshold={bound}: VisiPruner leaves such prompts as they are, and they do "
            "not count here",
            stacklevel=3,
        )


def _count(target: float, prompts: int, tokens: int) -> int:
    """How many of ``tokens`` are to be kept in all."""
    count = round(target * prompts) if target < float("inf") else tokens + 1
    if not 1 <= count <= tokens:
        raise PrunusError(
            f"target={target:g} tokens per prompt cannot be met: the {prompts} prompts with a "
            f"filtering layer have {tokens / prompts:g} visual tokens on average; choose a number "
            f"from {1 / prompts:.2g} to that"
        )
    return count
