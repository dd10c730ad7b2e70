"""EVS: what changed since the slice before stays; a cheap control for videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from prunus.grid import AnyGrid
from prunus.method import Cut, Method, View
from prunus.method.budget import Keep, check_keep
from prunus.pruners.uniform import lattice
from prunus.signals.shares import shares

_FIRST, _LAST = 3.0, -1.0  # above and below every cosine distance


@dataclass(frozen=True)
class EVS(Method):
    """Efficient video sampling, as in vLLM: before the language model, by how far each projected
    token is from the one in the same cell of the slice of time before (cosine distance).

    The first slice is kept whole; the largest distances of the others fill the budget. Where that
    has no room for a slice (the released code then keeps one all the same), and always with
    ``first="share"``, the first slice keeps its share of the budget, spread evenly over it. So
    every budget is met, and an image, which has one slice, keeps what ``uniform`` keeps.
    """

    name = "evs"
    paper = "efficient video sampling, as in vLLM"
    summary = "of videos, tokens that changed since the frame before"

    keep: Keep = field(default=0.25, metadata={"help": "tokens per video or image, or share"})
    first: Literal["whole", "share"] = field(
        default="whole", metadata={"help": "first slice: whole, where there is room | its share"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, whole=True)]

    def score(self, stage: int, view: View) -> Tensor:
        parts, start, found = view.grid.parts, 0, []
        for part, stay in zip(parts, self._of_first(view), strict=True):
            states = view.states.narrow(1, start, part.size).float()
            rows = nn.functional.normalize(states, dim=-1).unflatten(1, (part.frames, -1))
            moved = 1.0 - (rows[:, 1:] * rows[:, :-1]).sum(-1)
            first = moved.new_full((part.size // part.frames,), _LAST)
            if stay:
                first[lattice(stay, part.rows, part.cols).to(first.device)] = _FIRST
            found.append(torch.cat([first.expand(len(rows), -1), moved.flatten(1)], 1))
            start += part.size
        return torch.cat(found, 1)

    def _of_first(self, view: View) -> list[int]:
        """How many tokens of the first slice of each part stay."""
        parts, count = view.grid.parts, min(view.count or 0, view.grid.size)
        slices = [part.size // part.frames for part in parts]
        if self.first == "whole" and view.grid.frames > 1 and count >= sum(slices):
            return slices
        rest = [part.size - own for part, own in zip(parts, slices, strict=True)]
        sizes = slices + rest  # the other slices of all parts are ranked together
        return shares(count, sizes, sizes)[: len(parts)]

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return float((grid.size - grid.size // grid.frames) * width)
