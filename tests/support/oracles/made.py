"""The oracle for tokens that are made new before the language model, written in by hand.

Nothing here uses the engine. The unmodified model runs on the full-length prompt; where a trace
says that survivors became sums (``mix``), these are put into its embeddings, row by row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from prunus import TraceEntry
from tests.support.oracles.decoder import decoder_of
from tests.support.oracles.merged import given, merged_tower

Spots = list[list[list[int]]]


def written(states: Tensor, entry: TraceEntry, spots: Spots, tower: Tower | None) -> Tensor:
    """``states [B, L, D]`` with the new tokens of ``entry`` at their survivors' positions."""
    assert entry.mix is not None
    full, number = states.clone(), -1
    for row, images in enumerate(spots):
        for image, places in enumerate(images):
            number += 1
            into, of, weights = entry.mix[row][image]
            for token in into.unique().tolist():
                parts = [n for n in range(len(into)) if int(into[n]) == token]
                if entry.space == "tower" and tower is not None:
                    rows = [tower.row(number, int(of[n]), len(places)) for n in parts]
                else:
                    rows = [states[row, places[int(of[n])]] for n in parts]
                pairs = zip(parts, rows, strict=True)
                made = torch.stack([float(weights[n]) * own for n, own in pairs]).sum(0)
                if entry.space == "tower" and tower is not None:
                    made = tower.projected(made)
                full[row, places[token]] = made
    return full


class Tower:
    """What the LLaVA's tower gives, tokens merged in it by hand as a trace says: by image, features
    by original index (-1: CLS)."""

    def __init__(self, model: Any, pixels: Tensor, trace: list[TraceEntry]) -> None:
        self.projector = model.model.multi_modal_projector
        inside = [entry for entry in trace if entry.place == "encoder"]
        steps: list[Any] = [[]] * len(pixels)
        by_size, proportional = True, False
        for entry in inside:
            assert entry.steps is not None
            steps = [own for sample in entry.steps for own in sample]
            by_size, proportional = entry.by_size, entry.proportional
        self.tokens = [
            merged_tower(model, pixels[n : n + 1], given(own), by_size, proportional)[0]
            for n, own in enumerate(steps)
        ]

    def row(self, image: int, token: int, count: int) -> Tensor:
        """The feature of one token; number ``count`` is CLS."""
        return self.tokens[image][-1 if token == count else token]

    def projected(self, feature: Tensor) -> Tensor:
        # Not called: a hook of another oracle may give it merged features.
        found: Tensor = self.projector.forward(feature[None, None])[0, 0]
        return found


@contextlib.contextmanager
def made(
    model: Any, inputs: dict[str, Tensor], trace: list[TraceEntry], spots: Spots
) -> Iterator[None]:
    """``model`` with the new tokens of ``trace`` written into its full-length embeddings."""
    making = [entry for entry in trace if entry.mix is not None and entry.layer is None]
    tower = None
    has_projector = hasattr(getattr(model, "model", None), "multi_modal_projector")
    if has_projector and any(entry.space == "tower" for entry in making):
        with torch.no_grad():
            if hasattr(model.model, "video_tower"):
                from tests.support.oracles.merged_frames import FrameTowers

                tower = FrameTowers(model, inputs, trace)
            else:
                tower = Tower(model, inputs["pixel_values"], trace)

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        embeds = kwargs["inputs_embeds"]
        for entry in making:
            embeds = written(embeds, entry, spots, tower)
        return args, {**kwargs, "inputs_embeds": embeds}

    lm = decoder_of(model)
    handle = lm.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
