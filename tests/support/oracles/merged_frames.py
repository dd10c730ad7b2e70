"""The oracle for methods that merge inside the towers of Video-LLaVA, one for images and one for
videos: each image and each frame by itself, as tests/support/oracles/merged.py does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tests.support.oracles.made import Tower
from tests.support.oracles.merged import Pairs, given, merged_tower

Step = tuple[int, Any, Any]


def inputs_of(inputs: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Kind and frames ``[F, 3, H, W]`` of each input, images before videos."""
    for image in inputs.get("pixel_values_images", inputs.get("pixel_values", [])):
        yield "image", image[None]
    for video in inputs.get("pixel_values_videos", []):
        yield "video", video


def of_frame(steps: list[Step], frame: int, size: int) -> list[Step]:
    """Those of a video's ``steps`` that are of one ``frame`` of ``size`` tokens, in its own."""
    found = []
    for block, *pair in steps:
        own: Pairs = ([], [])
        for source, destination in zip(*map(torch.Tensor.tolist, pair), strict=True):
            assert source // size == destination // size
            if source // size == frame:
                own[0].append(source % size)
                own[1].append(destination % size)
        found.append((block, torch.tensor(own[0]), torch.tensor(own[1])))
    return found


def frame_features(model: Any, inputs: dict[str, Tensor], entry: Any) -> dict[str, Tensor]:
    """For each kind what the projector gives, ``[frames, rows, D]``: zeros where a token was merged
    away, and in front of each frame of a video its CLS token."""
    steps: dict[str, list[Any]] = {"image": [], "video": []}
    for kinds, sample in zip(entry.kind, entry.steps, strict=True):
        for kind, own in zip(kinds, sample, strict=True):
            steps[kind].append(own)
    config, core = model.config, model.model
    size = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    found: dict[str, list[Tensor]] = {}
    for kind, pixels in inputs_of(inputs):
        own = steps[kind].pop(0)
        lead = int(kind == "video" or config.vision_feature_select_strategy == "full")
        for frame, one in enumerate(pixels):
            choose = given(of_frame(own, frame, size))
            tower = getattr(core, f"{kind}_tower")
            tokens, _ = merged_tower(
                model, one[None], choose, entry.by_size, entry.proportional, tower
            )
            full = torch.zeros(lead + size, config.text_config.hidden_size, dtype=model.dtype)
            for index, token in tokens.items():
                if index + lead >= 0:
                    full[index + lead] = core.multi_modal_projector(token)
            found.setdefault(kind, []).append(full)
    assert not any(steps.values())
    return {kind: torch.stack(frames) for kind, frames in found.items()}


class FrameTowers(Tower):
    """What both towers give, nothing merged in them; frames of a video without their CLS tokens."""

    def __init__(self, model: Any, inputs: dict[str, Tensor], trace: list[Any]) -> None:
        assert all(entry.place != "encoder" for entry in trace)
        self.projector = model.model.multi_modal_projector
        given_inputs = list(inputs_of(inputs))
        self.tokens = []
        for kind in [kind for sample in trace[0].kind for kind in sample]:
            place = next(n for n, (own, _) in enumerate(given_inputs) if own == kind)
            _, pixels = given_inputs.pop(place)
            tower, joined = getattr(model.model, f"{kind}_tower"), {}
            for one in pixels:
                tokens, _ = merged_tower(model, one[None], lambda _: None, tower=tower)
                if kind == "image":
                    joined.update(tokens)
                else:
                    first = len(joined)
                    joined |= {first + index: own for index, own in tokens.items() if index >= 0}
            self.tokens.append(joined)
