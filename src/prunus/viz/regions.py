"""Pictures of merged tokens: every survivor drawn as the region that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.viz.overlay import faint
from prunus.viz.pane import pane_of
from prunus.viz.seen import Picture

#: Of borders: blue shows on light and dark.
BORDER = np.array([0.05, 0.35, 0.75], dtype=np.float32)


def region_cells(merged_into: Any, grid: AnyGrid) -> NDArray[np.int64]:
    """``[N]``: original index of the token that each cell is part of, -1 for none.

    Raises:
        PrunusError: not one index per cell, or indices outside the grid.
    """
    owners = np.asarray(merged_into, dtype=np.int64).reshape(-1)
    if owners.size != grid.size:
        raise PrunusError(f"{owners.size} tokens are merged, the grid has {grid.size}")
    if owners.size and not (owners.min() >= -1 and owners.max() < grid.size):
        wrong = owners.max() if owners.min() >= -1 else owners.min()
        raise PrunusError(f"merged_into reaches {wrong}, the grid has {grid.size} tokens")
    return owners


def spread_kept(kept: Any, merged_into: Any, grid: AnyGrid) -> NDArray[np.int64]:
    """Ascending cells that tokens of ``kept`` stand for, their own among them."""
    owners = region_cells(merged_into, grid)
    cells: NDArray[np.int64] = np.flatnonzero(np.isin(owners, np.asarray(kept, dtype=np.int64)))
    return cells


def merged_regions(
    picture: Picture, merged_into: Any, grid: AnyGrid, pane: int = 0, plain: Any = ()
) -> Picture:
    """``picture`` with each region in its mean colour, and borders around it; what is part of no
    token is grey and faint.

    Args:
        pane: which picture of the input this is: the number of a video's slice, or of a part.
        plain: tokens that are what they were, if they stand for themselves alone: drawn as seen.

    Raises:
        PrunusError: ``merged_into`` does not fit the grid, or the grid not the picture.
    """
    part, every = pane_of(grid, pane), region_cells(merged_into, grid)
    alone = np.bincount(every[every >= 0], minlength=grid.size) == 1
    as_seen = part.of(np.isin(every, np.asarray(plain, dtype=np.int64)) & alone[every])
    owners, own = part.of(every), part.grid
    height, width = own.cell
    rows, cols = own.rows * height, own.cols * width
    if rows > picture.shape[0] or cols > picture.shape[1]:
        raise PrunusError(
            f"a grid of {rows}x{cols} pixels does not fit a picture of "
            f"{picture.shape[0]}x{picture.shape[1]}: give the image as the model saw it"
        )
    seen = picture[:rows, :cols]

    def pixels(cells: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(np.repeat(cells, height, axis=0), width, axis=1)

    gone = owners < 0
    drawn = np.where(pixels(gone)[..., None], faint(seen), pixels(_means(seen, owners, own.cell)))
    drawn = np.where(pixels(as_seen)[..., None], seen, drawn)
    tinted = ~gone & ~as_seen
    below = (owners[1:] != owners[:-1]) & (tinted[1:] | tinted[:-1])
    beside = (owners[:, 1:] != owners[:, :-1]) & (tinted[:, 1:] | tinted[:, :-1])
    for row, col in np.argwhere(below):
        drawn[(row + 1) * height, col * width : (col + 1) * width] = BORDER
    for row, col in np.argwhere(beside):
        drawn[row * height : (row + 1) * height, (col + 1) * width] = BORDER
    full = picture.copy()
    full[:rows, :cols] = drawn
    drawn_on: Picture = full.astype(np.float32)
    return drawn_on


def _means(
    seen: Picture, owners: NDArray[np.int64], cell: tuple[int, int]
) -> NDArray[np.floating[Any]]:
    """``[rows, cols, 3]``: for each cell the mean colour of its region."""
    (rows, cols), (height, width) = owners.shape, cell
    means = seen.reshape(rows, height, cols, width, 3).mean(axis=(1, 3)).reshape(-1, 3)
    _, region = np.unique(owners, return_inverse=True)
    region = region.reshape(-1)
    count = np.bincount(region)
    colours = np.stack([np.bincount(region, means[:, c]) / count for c in range(3)], axis=1)
    found: NDArray[np.floating[Any]] = colours[region].reshape(rows, cols, 3)
    return found
