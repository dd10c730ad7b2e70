"""Where tokens lie, and how layers are named."""

from __future__ import annotations

import pytest

from prunus.grid import Grid
from prunus.results.report import spans


@pytest.mark.parametrize("shape", [(1, 3, 5), (2, 5, 3), (3, 1, 4), (2, 4, 1), (1, 1, 1)])
def test_boxes_tile_every_frame_row_by_row(shape: tuple[int, int, int]) -> None:
    frames, rows, cols = shape
    grid = Grid(frames, rows, cols, (7, 4))
    expected = [
        (frame, 4 * col, 7 * row, 4 * (col + 1), 7 * (row + 1))
        for frame in range(frames)
        for row in range(rows)
        for col in range(cols)
    ]
    assert [grid.box(index) for index in range(grid.size)] == expected
    for index in (-1, grid.size, grid.size + 1):
        with pytest.raises(ValueError, match=f"token index {index} is outside"):
            grid.box(index)


def test_spans_of_layers() -> None:
    assert spans([3]) == "layer 3"
    assert spans([0, 1, 2, 5]) == "layers 0-2, 5"
    assert spans([5, 3, 1]) == "layers 1, 3, 5"
    assert spans([8, 7, 4, 5]) == "layers 4-5, 7-8"
