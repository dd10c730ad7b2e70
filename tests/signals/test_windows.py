"""Pieces of grids, against adaptive pooling of torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from prunus.signals.windows import pieces, windows

GRIDS = [(6, 6), (4, 9), (9, 4), (1, 13), (13, 1), (2, 16), (5, 7), (1, 1)]


@pytest.mark.parametrize(("rows", "cols"), GRIDS)
def test_every_count_is_met_and_all_tokens_are_in_some_piece(rows: int, cols: int) -> None:
    for count in range(1, rows * cols + 1):
        found = pieces(rows, cols, count)
        assert len(found) == count
        assert len({piece[0] for piece in found}) == count
        assert set().union(*found) == set(range(rows * cols))
        for piece in found:  # rectangles, tokens in reading order
            ys, xs = {n // cols for n in piece}, {n % cols for n in piece}
            assert piece == [y * cols + x for y in sorted(ys) for x in sorted(xs)]
            assert max(ys) - min(ys) + 1 == len(ys) and max(xs) - min(xs) + 1 == len(xs)


@pytest.mark.parametrize(
    ("rows", "cols", "count", "shape"),
    [
        (24, 24, 192, (12, 16)),
        (24, 24, 128, (8, 16)),
        (24, 24, 64, (8, 8)),
        (24, 24, 144, (12, 12)),
        (6, 6, 6, (2, 3)),
        (6, 6, 20, (4, 5)),
        (6, 6, 15, (3, 5)),
        (4, 9, 4, (1, 4)),
        (4, 9, 16, (2, 8)),
        (9, 4, 16, (8, 2)),
        (2, 16, 8, (1, 8)),
        (1, 13, 5, (1, 5)),
        (13, 1, 7, (7, 1)),
        (5, 7, 35, (5, 7)),
        (27, 27, 196, (14, 14)),
    ],
)
def test_products_are_adaptive_pooling(
    rows: int, cols: int, count: int, shape: tuple[int, int]
) -> None:
    values = torch.randn(rows * cols, 5, dtype=torch.float64)
    found = torch.stack([values[piece].mean(0) for piece in pieces(rows, cols, count)])
    sheet = values.T.reshape(1, 5, rows, cols)
    wanted = adaptive_avg_pool2d(sheet, shape).reshape(5, count).T
    assert (found - wanted).abs().max() < 1e-12


def test_numbers_that_are_no_product_are_bands_of_nearly_equal_length() -> None:
    assert [len(piece) for piece in pieces(4, 4, 5)] == [4, 4, 4, 4, 4]  # 3 over 2, overlapping
    found = pieces(24, 24, 191)
    tops = sorted({piece[0] // 24 for piece in found})
    lengths = [sum(piece[0] // 24 == top for piece in found) for top in tops]
    assert sum(lengths) == 191 and max(lengths) - min(lengths) == 1 and len(tops) == 14


def test_a_product_of_long_pieces_is_none() -> None:
    """1 x 23 of 24 x 24 would be columns."""
    for count, bands in ((23, 5), (10, 3), (46, 7)):
        assert len({piece[0] // 24 for piece in pieces(24, 24, count)}) == bands


def test_sheets_share_the_count() -> None:
    for count in range(3, 25):
        found = windows([(2, 4), (2, 4), (2, 4)], count)
        shares = [sum(piece[0] // 8 == sheet for piece in found) for sheet in range(3)]
        assert len(found) == count and max(shares) - min(shares) <= 1
        assert all(len({n // 8 for n in piece}) == 1 for piece in found)
    assert [sum(p[0] < 8 for p in windows([(2, 4), (4, 6)], c)) for c in (4, 8, 16)] == [1, 2, 4]


def test_fewer_pieces_than_sheets_take_neighbours_together() -> None:
    assert windows([(1, 2)] * 3, 2) == [[0, 1], [2, 3, 4, 5]]
    assert windows([(1, 2), (1, 3)], 1) == [[0, 1, 2, 3, 4]]
