"""What the first decoder layer is given while a method prunes, and views made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import prunus
from prunus.grid import Grid
from prunus.method.view import View
from tests.support.models import Case


def entering(
    case: Case, method: Any, inputs: dict[str, Tensor], **options: Any
) -> tuple[prunus.Run, Tensor]:
    """The run of one call, and the states ``[B, S, D]`` that enter decoder layer 0."""
    found: list[Tensor] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])

    with prunus.prune(case.model, method, **options) as run, torch.no_grad():
        layer = case.model.get_decoder().layers[0]
        handle = layer.register_forward_pre_hook(note, with_kwargs=True)
        case.model(**inputs)
        handle.remove()
    return run, found[0]


def text_and_images(inputs: dict[str, Tensor], holder: int) -> list[tuple[bool, int, int]]:
    """A row without padding in pieces: whether of placeholders, where each begins, where it ends.
    Neighbouring images must have text between them."""
    ids, pieces = inputs["input_ids"][0].tolist(), []
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or (ids[place] == holder) != (ids[start] == holder):
            pieces.append((ids[start] == holder, start, place))
            start = place
    return pieces


def view_by_hand(
    count: int | None,
    grid: Grid,
    states: Tensor | None = None,
    attention: Tensor | None = None,
    keys: Tensor | None = None,
    summary: Tensor | None = None,
    **more: Any,
) -> View:
    """A view of one image with every token of ``grid``; signals ``[N, ...]`` are as given."""

    def one(values: Tensor | None) -> Any:
        return None if values is None else values[None]

    block = SimpleNamespace(attention=lambda rows: one(attention), keys=lambda *how: one(keys))
    layer = SimpleNamespace(states=one(states), pick=lambda values, of="visual": values)
    source: Any = SimpleNamespace(
        block=lambda number: block,
        layer=lambda number: layer,
        features=lambda: one(states),
        summary=lambda: one(summary),
    )
    return View(
        grid=grid,
        present=torch.arange(grid.size)[None],
        sizes=torch.ones(1, grid.size),
        count=count,
        owners=[(0, 0)],
        samples=1,
        depth=4,
        memo={},
        source=source,
        **more,
    )
