"""How many rows each block of a vision tower works on, when tokens merge on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.errors import PrunusError
from prunus.families.shapes import EncoderShape, TowerShape, WindowedShape
from prunus.grid import AnyGrid, Grid, tile_order

Step = tuple[int, Any, Any]
"""One merge: block, original indices of the tokens that go, and of those they go into."""


@dataclass(frozen=True)
class BlockWork:
    """Rows (patches, CLS among them) of one block for one image: ``attended`` in the attention,
    ``pairs`` of query and key in all its segments, ``fed`` to the MLP."""

    attended: int
    pairs: int
    fed: int


def tower_work(
    shape: TowerShape, grid: Grid | None = None, steps: Sequence[Step] = ()
) -> list[BlockWork]:
    """The work of each block on one image.

    Args:
        shape: sizes of the tower.
        grid: of the visual tokens, for a tower that takes images of any size.
        steps: what merges between attention and MLP of which block, as a
            :class:`~prunus.results.trace.TraceEntry` has it.

    Raises:
        PrunusError: a tower that needs the grid and was given none.
    """
    gone = {block: np.asarray(sources, dtype=np.int64) for block, sources, _ in steps}
    if isinstance(shape, EncoderShape):
        return _plain(shape, gone)
    return _windowed(shape, needed(grid), gone)


def needed(grid: Grid | None) -> Grid:
    """``grid``, or ValueError if there is none."""
    if grid is None:
        raise PrunusError("the cost of this tower depends on the size of each image: give its grid")
    return grid


def by_pass(steps: Sequence[Step], grid: AnyGrid, passes: Sequence[Grid]) -> list[list[Step]]:
    """The merges of one input with this ``grid``, pass by pass of the tower, in tokens of each
    pass; the tower sees its frames, or tiles, one behind the other."""
    if len(passes) == 1:
        return [list(steps)]
    places = np.argsort(tile_order(grid))
    found, start = [], 0
    for one in passes:
        own: list[Step] = []
        for block, *pair in steps:
            sources, into = (places[np.asarray(tokens, dtype=np.int64)] for tokens in pair)
            here = (sources >= start) & (sources < start + one.size)
            own.append((block, sources[here] - start, into[here] - start))
        found.append(own)
        start += one.size
    return found


def _plain(shape: EncoderShape, gone: dict[int, Any]) -> list[BlockWork]:
    left, work = shape.tokens, []
    for block in range(shape.layers):
        after = left - shape.merge**2 * len(gone.get(block, ()))
        work.append(BlockWork(left, left * left, after))
        left = after
    return work


def _windowed(shape: WindowedShape, grid: Grid, gone: dict[int, Any]) -> list[BlockWork]:
    """Tokens attend in windows of their frame, or in all of it; windows at the right and lower
    border are smaller, not padded, and those that lost every token are not there."""
    unit = shape.patches(grid)
    alive = np.ones(grid.size, dtype=np.int64)
    work = []
    for block in range(shape.layers):
        frames = alive.reshape(grid.frames, grid.rows, grid.cols)
        if block in shape.full:
            segments = frames.sum(axis=(1, 2))
        else:
            rows, cols = (np.arange(0, side, shape.window) for side in (grid.rows, grid.cols))
            segments = np.add.reduceat(np.add.reduceat(frames, rows, axis=1), cols, axis=2)
        attended = int(alive.sum()) * unit
        if block in gone:
            alive[gone[block]] = 0
        pairs = int((segments.astype(np.int64) ** 2).sum()) * unit**2
        work.append(BlockWork(attended, pairs, int(alive.sum()) * unit))
    return work
