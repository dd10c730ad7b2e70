"""Frames and tiles, which a vision tower sees one by one: the best tokens of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from prunus.grid import AnyGrid, tile_order
from prunus.signals.shares import shares


@lru_cache(maxsize=256)
def piece_sizes(grid: AnyGrid) -> tuple[int, ...]:
    """Tokens of each frame and tile of ``grid``, in the order of
    :func:`~prunus.grid.tile_order`."""
    return tuple(
        tile.rows * tile.cols
        for part in grid.parts
        for _ in range(part.frames)
        for band in part.tiles
        for tile in band
    )


def pieces_of(grid: AnyGrid, present: Tensor) -> Tensor:
    """Int64 ``[G, n]``: which frame or tile of ``grid`` each of the ``present`` tokens is of."""
    sizes = torch.tensor(piece_sizes(grid))
    number = torch.arange(len(sizes)).repeat_interleave(sizes)
    found = torch.empty_like(number).scatter(0, torch.tensor(tile_order(grid)), number)
    return found.to(present.device)[present]


def piece_shares(grid: AnyGrid, present: Tensor, count: int) -> list[list[int]]:
    """For each of the G images, how many of ``count`` tokens each frame and tile keeps: in
    proportion to what it has originally, and no more than is left of it."""
    sizes = piece_sizes(grid)
    if present.shape[1] == grid.size:
        return [shares(count, sizes, sizes)] * len(present)
    piece = pieces_of(grid, present)
    left = torch.zeros(len(present), len(sizes), dtype=torch.long, device=present.device)
    left = left.scatter_add(1, piece, torch.ones_like(piece))
    return [shares(count, sizes, own) for own in left.tolist()]


def best_of_pieces(
    scores: Tensor, grid: AnyGrid, present: Tensor, counts: Sequence[Sequence[int]]
) -> Tensor:
    """Ascending indices int64 ``[G, k]`` of the ``counts[g][p]`` largest of ``scores [G, n]`` in
    frame or tile p of image g; ties by lower index. Every image keeps k in all."""
    piece = pieces_of(grid, present)
    first = torch.sort(scores, dim=1, descending=True, stable=True).indices
    order = first.gather(1, torch.sort(piece.gather(1, first), dim=1, stable=True).indices)
    line = piece.gather(1, order)  # ascending: pieces one behind the other, the best first
    rank = torch.arange(line.shape[1], device=line.device) - torch.searchsorted(line, line)
    stays = rank < torch.tensor(counts, device=line.device).gather(1, line)
    total = sum(counts[0])
    gone = torch.sort((~stays).byte(), dim=1, stable=True).indices[:, :total]
    return order.gather(1, gone).sort(1).values
