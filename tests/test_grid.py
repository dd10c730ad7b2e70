"""Where tokens lie, and how layers are named."""

from __future__ import annotations

import pytest

from prunus.errors import PrunusError
from prunus.grid import Grid, Tiles
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


def test_a_grid_that_lies_in_an_area_has_boxes_in_the_original_picture() -> None:
    grid = Grid(1, 2, 4, (14, 14), (-10.0, 20.0, 100.0, 30.0))
    assert grid.box(0) == (0, -10.0, 20.0, 15.0, 35.0)
    assert grid.box(7) == (0, 65.0, 35.0, 90.0, 50.0)


OVERVIEW, DETAIL = Grid(1, 2, 2, (8, 8), (0, 0, 48, 24)), Grid(1, 2, 3, (8, 8), (4, 0, 40, 24))


def test_tokens_of_tiles_stand_one_part_behind_the_other() -> None:
    tiles = Tiles((OVERVIEW, DETAIL))
    assert tiles.size == 10 and tiles.frames == 1
    assert [tiles.part_of(n) for n in (0, 3, 4, 9)] == [(0, 0), (0, 3), (1, 0), (1, 5)]
    assert [tiles.box(n) for n in range(4)] == [OVERVIEW.box(n) for n in range(4)]
    assert [tiles.box(n + 4) for n in range(6)] == [DETAIL.box(n) for n in range(6)]
    assert tiles == Tiles((OVERVIEW, DETAIL)) and len({tiles, Tiles((OVERVIEW, DETAIL))}) == 1
    assert OVERVIEW.parts == (OVERVIEW,)
    for index in (-1, 10):
        with pytest.raises(PrunusError, match=f"token index {index} is outside the tiles of 10"):
            tiles.box(index)


def test_a_grid_with_seams_is_made_of_tiles() -> None:
    grid = Grid(1, 4, 5, (8, 6), seams=((3,), (2, 4)))
    shapes = [[(tile.rows, tile.cols) for tile in band] for band in grid.tiles]
    assert shapes == [[(3, 2), (3, 2), (3, 1)], [(1, 2), (1, 2), (1, 1)]]
    assert all(tile.cell == (8, 6) and tile.frames == 1 for band in grid.tiles for tile in band)
    assert OVERVIEW.tiles == ((Grid(1, 2, 2, (8, 8)),),)


def test_parts_show_the_picture_at_several_resolutions() -> None:
    assert OVERVIEW.resolutions == ((OVERVIEW,),)
    assert Tiles((DETAIL, OVERVIEW)).resolutions == ((DETAIL,), (OVERVIEW,))
    assert Tiles((DETAIL, DETAIL, OVERVIEW), loose=2).resolutions == ((DETAIL, DETAIL), (OVERVIEW,))
    for loose in (-1, 3):
        with pytest.raises(PrunusError, match=f"loose={loose}: there are 2 parts"):
            Tiles((DETAIL, OVERVIEW), loose)


def test_tiles_have_no_rows_and_say_what_they_have() -> None:
    tiles = Tiles((OVERVIEW, DETAIL))
    for name in ("rows", "cols", "cell"):
        assert not hasattr(tiles, name)
        with pytest.raises(PrunusError, match=f"no one '{name}'.*2x2 and 2x3.*grid.parts"):
            getattr(tiles, name)
    for parts in ((), (OVERVIEW, Grid(2, 2, 2, (8, 8)))):
        with pytest.raises(PrunusError, match="equally many frames"):
            Tiles(parts)


def test_spans_of_layers() -> None:
    assert spans([3]) == "layer 3"
    assert spans([0, 1, 2, 5]) == "layers 0-2, 5"
    assert spans([5, 3, 1]) == "layers 1, 3, 5"
    assert spans([8, 7, 4, 5]) == "layers 4-5, 7-8"
