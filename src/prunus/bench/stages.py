"""Where the time of one prompt goes: tower, projector, language model, and the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from prunus.bench.clock import wait
from prunus.families import family_of


def staged(
    model: nn.Module, action: Callable[[], object], device: torch.device
) -> dict[str, float]:
    """Seconds of ``tower``, ``projector``, ``language model`` (its layers, with what is chosen in
    them), ``other`` (embedding, choices before the language model, head) and ``all`` of one call.

    The device is brought to rest at every border, so that the parts are what each of them takes
    alone; their sum is more than the undisturbed whole, which :func:`.clock.seconds` times.
    """
    family = family_of(model)
    spent = {"tower": 0.0, "projector": 0.0, "language model": 0.0}
    began: dict[str, float] = {}
    handles = []

    def start(name: str) -> Callable[..., None]:
        def before(*_: Any) -> None:
            wait(device)
            began[name] = time.perf_counter()

        return before

    def stop(name: str) -> Callable[..., None]:
        def after(*_: Any) -> None:
            wait(device)
            spent[name] += time.perf_counter() - began[name]

        return after

    parts = {
        "tower": family.tower,
        "projector": family.projector,
        "language model": family.language_model,
    }
    for name, part in parts.items():
        handles += [
            part.register_forward_pre_hook(start(name)),
            part.register_forward_hook(stop(name)),
        ]
    try:
        wait(device)
        first = time.perf_counter()
        action()
        wait(device)
        whole = time.perf_counter() - first
    finally:
        for handle in handles:
            handle.remove()
    inside = family.projector in set(family.tower.modules())
    if inside:
        spent["tower"] -= spent["projector"]
    return {**spent, "other": whole - sum(spent.values()), "all": whole}
