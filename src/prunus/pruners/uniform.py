"""Uniform: tokens spread evenly. The control that needs no model at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import Grid
from prunus.method import Cut, Method
from prunus.method.budget import Keep, check_keep
from prunus.method.view import View
from prunus.signals.shares import shares
from prunus.signals.topk import first_best

PATTERNS = ("lattice", "stride")


@dataclass(frozen=True)
class Uniform(Method):
    """Keep exactly ``keep`` tokens, spread evenly over the image. One of the three controls every
    comparison needs.

    ``stride`` is what the literature calls uniform, equal distances along the row-major order of
    the N tokens that are there: ``floor((i + 1/2) * N / keep)``. Where the distance divides the
    width it keeps whole columns (192 of 24x24 tokens: every third), which is not even at all;
    ``lattice``, the default, is even in both directions for every budget, and so the harder control
    to beat. Behind a method that drops or merges, it keeps what is left of its lattice and fills
    the holes (:func:`lattice_among`). An image made of parts has a lattice in each of them.
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
        present, grid = view.present, view.grid
        groups, count = present.shape
        keep = min(view.count or count, count)
        if self.pattern == "lattice":
            return lattice_over(present, keep, grid.parts).float()
        places = (2 * torch.arange(keep, device=present.device) + 1) * count // (2 * keep)
        scores = torch.zeros(count, dtype=torch.float32, device=present.device)
        return scores.index_fill(0, places, 1.0).expand(groups, count)


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


def lattice_over(present: Tensor, keep: int, parts: Sequence[Grid]) -> Tensor:
    """:func:`lattice_among` in each of the ``parts`` of an image, ``keep`` shared in proportion to
    their sizes; bool ``[G, n]``."""
    if len(parts) == 1:
        (grid,) = parts
        return lattice_among(present, keep, grid.frames * grid.rows, grid.cols)
    taken = torch.zeros_like(present, dtype=torch.bool)
    sizes = [part.size for part in parts]
    ends = torch.tensor(sizes, device=present.device).cumsum(0)
    for row, own in enumerate(present):
        left = torch.searchsorted(own, ends).diff(prepend=ends.new_zeros(1)).tolist()
        start, first = 0, 0
        for part, here, share in zip(parts, left, shares(keep, sizes, left), strict=True):
            if share:
                inside = own[None, start : start + here] - first
                picked = lattice_among(inside, share, part.frames * part.rows, part.cols)
                taken[row, start : start + here] = picked[0]
            start, first = start + here, first + part.size
    return taken


def lattice_among(present: Tensor, keep: int, rows: int, cols: int) -> Tensor:
    """Bool ``[G, n]``: ``keep`` of the tokens that are left of a grid, spread evenly over it.

    Points of :func:`lattice` that are still there are taken; where none of them is, the token
    nearest to the first of them. What the lattice lost is made up for where its holes are largest:
    by the token farthest from all that are taken (straight distance on the grid). Of several, the
    one farthest from those that were filled in takes precedence, so that these spread as well; then
    the one of the lowest index.

    Args:
        present: int64 ``[G, n]``, ascending row-major indices of what is left, ``n >= keep``.
    """
    points = lattice(keep, rows, cols)
    taken = torch.isin(present, points.to(present.device))
    if bool((taken.sum(1) == keep).all()):
        return taken
    row, col, far = present // cols, present % cols, rows**2 + cols**2

    def distance(y: Tensor | int, x: Tensor | int) -> Tensor:
        return (row - y) ** 2 + (col - x) ** 2

    def one(place: Tensor) -> Tensor:
        return torch.zeros_like(taken).scatter(1, place, True)

    y, x = divmod(int(points[0]), cols)
    taken = taken | (one(first_best(-distance(y, x))[:, None]) & ~taken.any(1, keepdim=True))
    # Squared distances to the nearest taken one, and to the nearest that was filled in. Token by
    # token: memory stays linear in n.
    nearest, filled = torch.full_like(present, far), torch.full_like(present, far)
    for place in range(present.shape[1]):
        at = slice(place, place + 1)
        own = distance(row[:, at], col[:, at]).masked_fill(~taken[:, at], far)
        nearest = torch.minimum(nearest, own)
    missing = keep - taken.sum(1, keepdim=True)
    for step in range(int(missing.max())):
        hole = nearest * (far + 1) + filled
        best = first_best(hole.masked_fill(taken, -1))[:, None]
        taken = taken | (one(best) & (missing > step))
        own = distance(row.gather(1, best), col.gather(1, best))
        nearest, filled = torch.minimum(nearest, own), torch.minimum(filled, own)
    return taken
