"""Pictures of what a method looked at and what it kept: heat maps, dimmed and outlined patches.

Everything here takes plain pictures (``[height, width, 3]``, values in [0, 1], *as the model saw
them*) and returns pictures, without matplotlib.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.viz.pane import Pane, pane_of
from prunus.viz.seen import Picture

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_MARK = np.array([0.1, 1.0, 0.9], dtype=np.float32)  # of outlines: no heat map has this colour


def kept_cells(kept: Any, grid: AnyGrid) -> NDArray[np.bool_]:
    """``[N]``: True for each token of ``kept`` (indices).

    Raises:
        PrunusError: an index outside the grid.
    """
    indices = np.asarray(kept, dtype=np.int64).reshape(-1)
    if indices.size and not (indices.min() >= 0 and indices.max() < grid.size):
        raise PrunusError(f"kept indices reach {indices.max()}, the grid has {grid.size} tokens")
    cells = np.zeros(grid.size, dtype=np.bool_)
    cells[indices] = True
    return cells


def score_cells(scores: Any, grid: AnyGrid) -> NDArray[np.float32]:
    """``[N]`` of scores as *ranks* in [0, 1]; NaN where a token was gone before.

    Ranks, not values: scores of different methods have different units, a few tokens often dwarf
    all others, and the ranks are what the selection goes by. Equal scores get equal ranks.

    Raises:
        PrunusError: not one score per token of the grid.
    """
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if values.size != grid.size:
        raise PrunusError(f"{values.size} scores for a grid of {grid.size} tokens")
    ranks = np.full(values.size, np.nan)
    there = ~np.isnan(values)
    _, place, counts = np.unique(values[there], return_inverse=True, return_counts=True)
    if counts.size:
        middle = np.cumsum(counts) - (counts + 1) / 2
        ranks[there] = middle[place] / max(1, there.sum() - 1)
    return ranks.astype(np.float32)


def dim_dropped(
    picture: Picture, kept: Any, grid: AnyGrid, pane: int = 0, colour: float = 0.0
) -> Picture:
    """``picture`` with the patches of dropped tokens grey and faint, those of kept ones as is.

    Args:
        pane: which picture of the input this is: the number of a video's slice, or of a part.
        colour: share of their own colours that dropped patches keep.
    """
    mask = _spread(kept_cells(kept, grid), pane_of(grid, pane), picture)
    return np.where(mask[..., None], picture, faint(picture, colour)).astype(np.float32)


def faint(picture: Picture, colour: float = 0.0) -> Picture:
    """``picture`` grey and light, but never white, with a share of its ``colour``: what is gone."""
    grey = np.clip((picture @ _LUMA)[..., None] * 0.25 + 0.60, 0.0, 1.0)
    mixed: Picture = ((1 - colour) * grey + colour * picture).astype(np.float32)
    return mixed


def value_cells(scores: Any, grid: AnyGrid, most: float) -> NDArray[np.float32]:
    """``[N]`` of scores as square roots of their shares of ``most``, in [0, 1]; NaN where a token
    was gone before. For scores whose size means something, and of which a few dwarf all others.

    Raises:
        PrunusError: not one score per token of the grid.
    """
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if values.size != grid.size:
        raise PrunusError(f"{values.size} scores for a grid of {grid.size} tokens")
    shares = (
        np.sqrt(np.clip(values / most, 0.0, 1.0))
        if most > 0
        else np.where(np.isnan(values), values, 0)
    )
    return shares.astype(np.float32)


def heat_map(
    picture: Picture, scores: Any, grid: AnyGrid, pane: int = 0, most: float | None = None
) -> Picture:
    """``scores`` as colours (dark: least, yellow: most) over a grey ``picture``: their ranks, or,
    where ``most`` is given, the square root of their share of it."""
    values = score_cells(scores, grid) if most is None else value_cells(scores, grid, most)
    cells = _spread(values, pane_of(grid, pane), picture, outside=np.nan)
    gone = np.isnan(cells)
    colour = heat_colours(np.where(gone, 0.0, cells))
    grey = np.broadcast_to((picture @ _LUMA)[..., None], picture.shape)
    blended = 0.6 * colour + 0.4 * grey
    return np.where(gone[..., None], 0.5 * grey + 0.5, blended).astype(np.float32)


def outlined(
    picture: Picture,
    tokens: Any,
    grid: AnyGrid,
    pane: int = 0,
    colour: NDArray[np.float32] = _MARK,
) -> Picture:
    """``picture`` with a bright line around the patches of ``tokens``, inside of them: thick enough
    to be seen where the whole picture is drawn a few centimetres wide."""
    own = pane_of(grid, pane)
    mask = _spread(kept_cells(tokens, grid), own, picture)
    thick = max(1, min(round(max(picture.shape[:2]) / 150), min(own.grid.cell) // 4))
    inner = np.pad(mask, thick, constant_values=False)
    for axis in (0, 1):  # shrunk by `thick` pixels on every side, corners included
        moved = [np.roll(inner, step, axis) for step in range(-thick, thick + 1)]
        inner = np.logical_and.reduce(moved)
    line = mask & ~inner[thick:-thick, thick:-thick]
    return np.where(line[..., None], colour, picture).astype(np.float32)


def _spread(
    values: NDArray[Any], pane: Pane, picture: Picture, outside: float = 0.0
) -> NDArray[Any]:
    """``values`` ``[N]`` of the tokens of an input on the pixels of one ``picture`` of it.

    A tower whose image side is no multiple of the patch ignores the last pixels: they belong to
    no token and get ``outside``.
    """
    height, width = pane.grid.cell
    spread = np.repeat(np.repeat(pane.of(values), height, axis=0), width, axis=1)
    rows, cols = picture.shape[:2]
    if spread.shape[0] > rows or spread.shape[1] > cols:
        raise PrunusError(
            f"a grid of {spread.shape[0]}x{spread.shape[1]} pixels does not fit a picture of "
            f"{rows}x{cols}: give the image as the model saw it"
        )
    full = np.full((rows, cols), outside, dtype=spread.dtype)
    full[: spread.shape[0], : spread.shape[1]] = spread
    return full


#: Eight points of matplotlib's "inferno" map, interpolated: drawing needs no matplotlib for it.
_INFERNO = np.array(
    [
        [0.001, 0.000, 0.014],
        [0.155, 0.044, 0.325],
        [0.397, 0.083, 0.433],
        [0.624, 0.165, 0.388],
        [0.830, 0.283, 0.259],
        [0.961, 0.490, 0.084],
        [0.980, 0.753, 0.153],
        [0.988, 1.000, 0.645],
    ],
    dtype=np.float32,
)


def heat_colours(values: NDArray[Any]) -> Picture:
    """``values`` in [0, 1] as the colours of heat maps, from dark to yellow."""
    points = np.linspace(0.0, 1.0, len(_INFERNO))
    channels = [np.interp(values, points, _INFERNO[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)
