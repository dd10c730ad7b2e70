"""Frames and tiles, which a vision tower sees one by one: the best tokens of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from prunus.grid import AnyGrid, Grid, tile_order
from prunus.signals.shares import shares
from prunus.signals.topk import rank_in


@lru_cache(maxsize=256)
def piece_sizes(grid: AnyGrid) -> tuple[int, ...]:
    """Tokens of each frame and tile of ``grid``, in the order of
    :func:`~prunus.grid.tile_order`."""
    return tuple(tile.size for tile in piece_tiles(grid))


@lru_cache(maxsize=256)
def piece_tiles(grid: AnyGrid) -> tuple[Grid, ...]:
    """The grid of each frame and tile of ``grid``, in the same order."""
    return tuple(
        Grid(1, tile.rows, tile.cols, tile.cell)
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
    return [shares(count, piece_sizes(grid), own) for own in left_of_pieces(grid, present)]


def left_of_pieces(grid: AnyGrid, present: Tensor) -> list[list[int]]:
    """For each of the G images, how many tokens are left of each frame and tile."""
    sizes = piece_sizes(grid)
    if present.shape[1] == grid.size:
        return [list(sizes)] * len(present)
    piece = pieces_of(grid, present)
    left = torch.zeros(len(present), len(sizes), dtype=torch.long, device=present.device)
    found: list[list[int]] = left.scatter_add(1, piece, torch.ones_like(piece)).tolist()
    return found


def best_of_pieces(
    scores: Tensor, grid: AnyGrid, present: Tensor, counts: Sequence[Sequence[int]]
) -> Tensor:
    """Ascending indices int64 ``[G, k]`` of the ``counts[g][p]`` largest of ``scores [G, n]`` in
    frame or tile p of image g; ties by lower index. Every image keeps k in all."""
    piece = pieces_of(grid, present)
    most = torch.tensor(counts, device=piece.device).gather(1, piece)
    gone = rank_in(scores, piece) >= most
    return torch.sort(gone.byte(), dim=1, stable=True).indices[:, : sum(counts[0])]
