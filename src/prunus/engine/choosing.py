"""A method is shown the tokens of a prompt, and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.engine.answers import check_answers
from prunus.engine.kept import Looks
from prunus.engine.layout import Layout
from prunus.engine.tower.spread import per_survivor, spread_view
from prunus.engine.views import view_of
from prunus.engine.watch import choosing
from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method import Cut, Method, Selection
from prunus.method.budget import Budget
from prunus.method.view import View

Groups = Mapping[tuple[AnyGrid, int], list[int]]
"""Numbers of the images that share a grid and a number of tokens."""


@dataclass(frozen=True)
class Here:
    """Where a prompt is: its ``states [B, S, D]`` in ``layout``, what was kept of it so far, how
    many samples it has, and what the method remembers of it."""

    looks: Looks
    layout: Layout
    states: Tensor
    samples: int
    memo: dict[Any, Any]


def answers(
    here: Here, budget: Budget, method: Method, stage: int, cut: Cut
) -> tuple[Groups, Sequence[Selection], float]:
    """What ``method`` chooses at ``stage`` for each group of images, and the multiply-accumulates
    that this cost.

    Raises:
        PrunusError: an answer that makes no sense.
    """
    with choosing():
        return _answers(here, budget, method, stage, cut)


def _answers(
    here: Here, budget: Budget, method: Method, stage: int, cut: Cut
) -> tuple[Groups, Sequence[Selection], float]:
    groups: dict[tuple[AnyGrid, int], list[int]] = {}
    for number, image in enumerate(here.looks.images):
        groups.setdefault((image.grid, image.present.shape[0]), []).append(number)
    views = [
        view_of(
            here.looks,
            [here.looks.images[n] for n in members],
            here.states,
            here.layout,
            here.samples,
            here.memo,
            _count(budget, method, stage, grid),
            cut.sees,
        )
        for (grid, _), members in groups.items()
    ]
    merged = [[here.looks.images[n].merged_into for n in own] for own in groups.values()]
    selections = _select(method, stage, cut, views, merged)
    check_answers(method.name, views, selections)
    macs = 0.0
    for ((grid, count), members), view, one in zip(groups.items(), views, selections, strict=True):
        each = method.macs(stage, grid, count, here.states.shape[-1])
        macs += len(members) * each if one.macs is None else one.macs
        macs += view.source.macs
    return groups, selections, macs


def _count(budget: Budget, method: Method, stage: int, grid: AnyGrid) -> int | None:
    """Tokens of an input on ``grid`` that are to be left after ``stage``."""
    counts = budget.counts(method, grid.pieces, grid.size)
    if counts is None:
        return None
    return counts[stage] * (1 if method.unit == "image" else grid.pieces)


def _select(
    method: Method,
    stage: int,
    cut: Cut,
    views: list[View],
    owners: Sequence[Sequence[Tensor | None]],
) -> Sequence[Selection]:
    """What ``method`` keeps. Where it needs the whole grid and tokens were merged, survivors
    are spread over the cells that they stand for, and the scores of these are averaged."""
    spread = stage == 0 and cut.whole
    if not spread or all(owner is None for own in owners for owner in own):
        return method.choose(stage, views)
    selections = []
    for view, own in zip(views, owners, strict=True):
        merged = [owner for owner in own if owner is not None]
        if view.intact or not merged:
            selections.append(method.select(stage, view))
            continue
        if any(bool((one < 0).any()) for one in merged):
            raise PrunusError(
                f"{method.name} needs the whole grid of each image, but a method before it has "
                "dropped tokens: change their order or layers"
            )
        slots = torch.searchsorted(view.present, torch.stack(merged))
        scores = per_survivor(
            method.score(stage, spread_view(view, slots)), slots, view.present.shape[1]
        )
        selections.append(method.rank(stage, view, scores))
    return selections
