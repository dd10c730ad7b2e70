"""Pictures that are cut into a rectangle of equal tiles, each of which the tower sees by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid, Grid, Tiles, tile_order


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


def with_thumbnail(
    tile: Grid,
    count: int,
    size: tuple[int, int] | None,
    arrange: Callable[[int, int, int], tuple[int, int]],
) -> AnyGrid:
    """Where the tokens of ``count`` tiles lie, the last of which, if there are more than one, is a
    thumbnail of the picture of this ``size`` (height, width). Without the size nobody knows how
    they are arranged; with it, ``arrange(tiles, height, width)`` says how many down and across."""
    area = None if size is None else (0.0, 0.0, float(size[1]), float(size[0]))
    if count == 1:
        return replace(tile, area=area)
    if size is None or count == 2:  # no image has one tile and a thumbnail
        return Tiles((tile,) * count, loose=count - 1)
    rows, cols = arrange(count - 1, *size)
    return Tiles((mosaic(tile, rows, cols, area), replace(tile, area=area)))


def check_tiles(places: Sequence[tuple[int, int]], tile: Grid, what: str = "them") -> None:
    """Raise PrunusError unless each run of placeholders, from one place to another, is a ``tile``;
    ``what`` the processor has to write, in words."""
    wrong = [end - start for start, end in places if end - start != tile.size]
    if wrong:
        raise PrunusError(
            f"a run of {wrong[0]} image placeholders is no tile of {tile.size} tokens: let the "
            f"processor of this model write {what}"
        )


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
