"""Pictures that are cut into a rectangle of equal tiles, each of which the tower sees by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from prunus.grid import AnyGrid, Grid


def mosaic(
    tile: Grid, rows: int, cols: int, area: tuple[float, float, float, float] | None = None
) -> Grid:
    """The grid of ``rows`` x ``cols`` tiles that lie edge to edge, without frames."""
    seams = (
        tuple(tile.rows * n for n in range(1, rows)),
        tuple(tile.cols * n for n in range(1, cols)),
    )
    return replace(tile, rows=tile.rows * rows, cols=tile.cols * cols, area=area, seams=seams)


def tile_by_tile(grid: AnyGrid) -> Tensor:
    """Int64 ``[N]``: the cells of all parts, in each the tiles in reading order, one behind the
    other, each row by row. For images."""
    found, first = [], 0
    for part in grid.parts:
        numbers = torch.arange(part.size).view(part.rows, part.cols) + first
        first += part.size
        for band in numbers.tensor_split(part.seams[0], dim=0):
            found += [tile.flatten() for tile in band.tensor_split(part.seams[1], dim=1)]
    return torch.cat(found)


def tiles_of(grid: AnyGrid) -> Sequence[Grid]:
    """What the tower sees one by one, in the order of :func:`tile_by_tile`."""
    return [tile for part in grid.parts for band in part.tiles for tile in band]


def runs(places: Tensor) -> list[list[tuple[int, int]]]:
    """For each row of bool ``[B, L]`` the runs of True in it: first place, and the place behind."""
    found = []
    for row in places.tolist():
        place, own = 0, []
        for holds, run in groupby(row):
            end = place + sum(1 for _ in run)
            if holds:
                own.append((place, end))
            place = end
        found.append(own)
    return found
