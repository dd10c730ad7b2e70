"""Pieces of grids that average pooling takes together, and windows of equal size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from prunus.grid import AnyGrid, tile_order
from prunus.signals.pieces import piece_tiles


def windows(sheets: Sequence[tuple[int, int]], count: int) -> list[list[int]]:
    """``count`` pieces of several sheets (rows, columns) whose tokens are numbered through.

    Each sheet gets a share in proportion to its tokens, and at least one; where there are more
    sheets than pieces, neighbouring sheets are taken together. Within a sheet the pieces are those
    of :func:`pieces`.
    """
    sizes = [rows * cols for rows, cols in sheets]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    if count < len(sheets):
        bounds = [number * len(sheets) // count for number in range(count + 1)]
        ends = [*starts, sum(sizes)]
        return [list(range(ends[a], ends[b])) for a, b in itertools.pairwise(bounds)]
    found = []
    for (rows, cols), start, share in zip(sheets, starts, _shares(sizes, count), strict=True):
        found += [[start + token for token in piece] for piece in pieces(rows, cols, share)]
    return found


def pieces(rows: int, cols: int, count: int) -> list[list[int]]:
    """``count`` pieces of one sheet: bands of rows, each cut into columns, with the bounds of
    adaptive pooling (piece i of m over n is ``i n // m`` to ``-(-(i + 1) n // m)``). Where
    ``count`` is no product that fits the sheet, some bands have a column more than others. Their
    first tokens differ."""
    bands = _bands(rows, cols, count)
    each, more = divmod(count, bands)
    found = []
    for band, (top, bottom) in enumerate(_bounds(rows, bands)):
        for left, right in _bounds(cols, each + (band < more)):
            found.append([y * cols + x for y in range(top, bottom) for x in range(left, right)])
    return found


def _bands(rows: int, cols: int, count: int) -> int:
    """Bands in which ``count`` pieces lie: where it is a product whose pieces are at most twice as
    long as wide (or as the sheet lets them be), that which is most like the sheet, the fewer rows
    of two that are equally so (12 x 16 of 24 x 24); else as many as make pieces nearly square."""
    products = [b for b in range(1, rows + 1) if count % b == 0 and count // b <= cols]

    def length(bands: int) -> Fraction:
        side = Fraction(bands * cols, rows * (count // bands))
        return max(side, 1 / side)

    best = min(products, key=lambda bands: (length(bands), bands), default=0)
    if best and (length(best) <= 2 or 1 in (rows, cols)):
        return best
    bands = min(rows, count, max(1, round(math.sqrt(count * rows / cols))))
    while -(-count // bands) > cols:
        bands += 1
    return bands


def _bounds(length: int, parts: int) -> list[tuple[int, int]]:
    return [(i * length // parts, -(-(i + 1) * length // parts)) for i in range(parts)]


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """``count`` in proportion to ``sizes``, at least 1 and at most all of each; what rounding
    leaves goes to the largest remainders, earlier ones first."""
    total = sum(sizes)
    exact = [count * size / total for size in sizes]
    shares = [min(size, max(1, math.floor(own))) for size, own in zip(sizes, exact, strict=True)]
    order = sorted(range(len(sizes)), key=lambda n: shares[n] - exact[n])
    while sum(shares) != count:
        step = 1 if sum(shares) < count else -1
        for number in order if step > 0 else reversed(order):
            if sum(shares) != count and 1 <= shares[number] + step <= sizes[number]:
                shares[number] += step
    return shares


def windows_of(grid: AnyGrid, side: int) -> Tensor:
    """Int64 ``[N]``: the window that each token of ``grid`` is in, counted through frames and
    tiles. Each of these has ``side`` windows along both sides, as far as its tokens reach, all of
    equal size but for the last ones, which have what is left at the edge as well (VScan)."""
    numbers: list[int] = []
    start = 0
    for tile in piece_tiles(grid):
        down, across = min(side, tile.rows), min(side, tile.cols)
        for row in range(tile.rows):
            above = min(row // (tile.rows // down), down - 1) * across
            for col in range(tile.cols):
                numbers.append(start + above + min(col // (tile.cols // across), across - 1))
        start += down * across
    found = torch.tensor(numbers)
    return torch.empty_like(found).scatter(0, torch.tensor(tile_order(grid)), found)


def window_counts(grid: AnyGrid, side: int) -> list[int]:
    """How many windows each frame and tile has in :func:`windows_of`."""
    return [min(side, tile.rows) * min(side, tile.cols) for tile in piece_tiles(grid)]
