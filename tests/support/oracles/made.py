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
    """What the unmodified LLaVA's tower gives: its features, and the CLS token."""

    def __init__(self, model: Any) -> None:
        self.projector = model.model.multi_modal_projector
        self.has_cls = model.config.vision_config.model_type == "clip_vision_model"
        self.states: Tensor | None = None
        assert model.config.vision_feature_layer == -2
        last = model.model.vision_tower.encoder.layers[-2]
        self.handle = last.register_forward_hook(self._note)

    def _note(self, module: Any, args: Any, output: Any) -> None:
        self.states = output[0] if isinstance(output, tuple) else output

    def row(self, image: int, token: int, count: int) -> Tensor:
        """The feature of one token; number ``count`` is CLS."""
        assert self.states is not None
        if token == count:
            assert self.has_cls
            return self.states[image, 0]
        return self.states[image, token + self.has_cls]

    def projected(self, feature: Tensor) -> Tensor:
        found: Tensor = self.projector(feature[None, None])[0, 0]
        return found


@contextlib.contextmanager
def made(model: Any, trace: list[TraceEntry], spots: Spots) -> Iterator[None]:
    """``model`` with the new tokens of ``trace`` written into its full-length embeddings."""
    making = [entry for entry in trace if entry.mix is not None and entry.layer is None]
    tower = Tower(model) if making and hasattr(model.model, "multi_modal_projector") else None

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        embeds = kwargs["inputs_embeds"]
        for entry in making:
            embeds = written(embeds, entry, spots, tower)
        return args, {**kwargs, "inputs_embeds": embeds}

    lm = model.model.language_model
    handle = lm.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        if tower is not None:
            tower.handle.remove()
