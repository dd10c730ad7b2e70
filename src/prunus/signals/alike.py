"""Frames and tiles that are chosen from one by one, those of equal numbers together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.grid import AnyGrid
from prunus.signals.pieces import left_of_pieces, piece_shares, pieces_of


@dataclass(frozen=True)
class Alike:
    """Frames and tiles of which equally many tokens are there and equally many are to stay.

    Attributes:
        images: int64 ``[M]``, which of the G images each is of; places: int64 ``[M, t]``, its
            tokens among the n that are present, ascending; count: how many are to stay of each.
    """

    images: Tensor
    places: Tensor
    count: int

    def pick(self, values: Tensor) -> Tensor:
        """Of values ``[G, n, ...]`` theirs, ``[M, t, ...]``."""
        return values[self.images[:, None].to(values.device), self.places.to(values.device)]

    def mark(self, chosen: Tensor, own: Tensor) -> None:
        """Set in bool ``chosen [G, n]`` what is chosen of each: ``own`` int64 ``[M, k]`` among the
        t."""
        chosen[self.images[:, None], self.places.gather(1, own.to(self.places.device))] = True


def alike_pieces(grid: AnyGrid, present: Tensor, count: int, each: bool = True) -> list[Alike]:
    """All frames and tiles of the G images that keep something, ``count`` in all by
    :func:`~prunus.signals.pieces.piece_shares`; without ``each`` the images as they are."""
    device = present.device
    if not each or grid.pieces == 1:
        images = torch.arange(len(present), device=device)
        every = torch.arange(present.shape[1], device=device).expand_as(present)
        return [Alike(images, every, count)]
    order = torch.sort(pieces_of(grid, present), dim=1, stable=True).indices
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    shared = piece_shares(grid, present, count)
    for image, left in enumerate(left_of_pieces(grid, present)):
        start = 0
        for size, own in zip(left, shared[image], strict=True):
            if own:
                found.setdefault((size, own), []).append((image, start))
            start += size
    return [
        Alike(
            torch.tensor([image for image, _ in members], device=device),
            torch.stack([order[image, start : start + size] for image, start in members]),
            own,
        )
        for (size, own), members in found.items()
    ]
