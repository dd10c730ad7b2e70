"""Pictures that are cut into a rectangle of equal tiles, each of which the tower sees by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid, Grid, tile_order


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
    other, each row by row."""
    return torch.tensor(tile_order(grid))


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


def canvas_by_aspect(tiles: int, tile: Grid, height: int, width: int) -> tuple[int, int]:
    """Down and across, how the processor arranges as many ``tiles`` as it found best for a picture
    of this size: nearest to its aspect ratio; of two that are equally near the wider one, if the
    picture has more than half of their pixels."""
    shapes = [(tiles // cols, cols) for cols in range(1, tiles + 1) if tiles % cols == 0]
    off = [abs(width / height - cols / rows) for rows, cols in shapes]
    nearest = [shape for shape, by in zip(shapes, off, strict=True) if by == min(off)]
    pixels = tiles * tile.size * tile.cell[0] * tile.cell[1]
    return nearest[-1 if height * width > pixels / 2 else 0]


def sizes_given(given: Any, images: int) -> list[tuple[int, int] | None]:
    """``image_sizes`` of a call, one for each image."""
    if given is None:
        return [None] * images
    table = torch.as_tensor(given)
    if table.ndim != 2 or table.shape[1] != 2 or len(table) != images:
        raise PrunusError(
            f"image_sizes has shape {tuple(table.shape)}: give one row (height, width) for each of "
            f"the {images} images (or frames), in the order of the prompt, or leave it out"
        )
    return [(int(height), int(width)) for height, width in table.tolist()]
