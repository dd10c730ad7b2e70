"""Uniform: tokens spread evenly. The control that needs no model at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunus.budget import Keep, check_keep
from prunus.errors import PrunusError
from prunus.method import Cut, Method
from prunus.view import View

PATTERNS = ("lattice", "stride")


@dataclass(frozen=True)
class Uniform(Method):
    """Keep exactly ``keep`` tokens, spread evenly over the image. One of the three controls every
    comparison needs.

    ``stride`` is what the literature calls uniform, equal distances along the row-major order:
    ``floor((i + 1/2) * N / keep)``. Where the distance divides the width it keeps whole columns
    (192 of 24x24 tokens: every third), which is not even at all; ``lattice``, the default, is even
    in both directions for every budget, and so the harder control to beat.
    """

    name = "uniform"
    paper = "control (stride sampling, as HiRED's spatial option)"
    summary = "tokens spread evenly, whatever they show"

    keep: Keep = field(default=1 / 3, metadata={"help": "tokens per image, or share of them"})
    layer: int | None = field(
        default=1, metadata={"help": "decoder layer at whose input tokens go; none: before the LLM"}
    )
    pattern: str = field(
        default="lattice", metadata={"help": "lattice (even both ways) | stride (every n-th)"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.pattern not in PATTERNS:
            raise PrunusError(f"pattern={self.pattern!r}: expected {' or '.join(PATTERNS)}")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(self.layer)]

    def score(self, stage: int, view: View) -> Tensor:
        groups, count = view.present.shape
        keep = min(self.budget(stage, view.grid.size), count)
        if self.pattern == "lattice":
            chosen = lattice(keep, view.grid.frames * view.grid.rows, view.grid.cols)
        else:
            chosen = (2 * torch.arange(keep) + 1) * count // (2 * keep)
        scores = torch.zeros(count, device=view.present.device)
        scores[chosen.to(scores.device)] = 1.0
        return scores.expand(groups, count)


def lattice(keep: int, rows: int, cols: int) -> Tensor:
    """``[keep]`` int64, ascending: row-major indices of ``keep <= rows * cols`` points, on lines as
    far apart as the points of a line."""
    lines = round(math.sqrt(keep * rows / cols))
    lines = min(max(lines, math.ceil(keep / cols), 1), rows, keep)
    points = []
    for line in range(lines):
        along = (line + 1) * keep // lines - line * keep // lines
        start = (2 * line + 1) * rows // (2 * lines) * cols
        points.append(start + (2 * torch.arange(along) + 1) * cols // (2 * along))
    return torch.cat(points)
