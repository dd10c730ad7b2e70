"""Merged tokens are drawn as what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prunus.grid import Grid
from prunus.results.trace import TraceEntry
from prunus.viz import dim_dropped, heat_map, trace_panels
from prunus.viz.regions import merged_regions, spread_kept

GRID = Grid(1, 2, 3, (4, 4))
INTO = [0, 0, 2, 0, 4, 2]


def picture() -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(1).random((9, 12, 3)).astype(np.float32)  # one row of no token


def test_each_region_has_its_mean_colour_inside() -> None:
    seen = picture()
    drawn = merged_regions(seen, INTO, GRID)
    cells = seen[:8].reshape(2, 4, 3, 4, 3).mean(axis=(1, 3)).reshape(6, 3)
    for index in range(6):
        own = [cell for cell in range(6) if INTO[cell] == INTO[index]]
        row, col = divmod(index, 3)
        inner = drawn[row * 4 + 1 : row * 4 + 4, col * 4 + 1 : col * 4 + 4]
        assert np.allclose(inner, cells[own].mean(axis=0), atol=1e-6)
    assert np.array_equal(drawn[8], seen[8])


def test_borders_stand_between_different_regions_only() -> None:
    drawn = merged_regions(picture(), INTO, GRID)
    inside = drawn[1, 1]
    assert np.allclose(drawn[:4, 4], inside)  # cells 0 and 1 are one region
    assert np.allclose(drawn[4, :4], inside)  # so are 0 and 3
    assert not np.allclose(drawn[:4, 8], drawn[1, 9])  # 1 and 2 are not
    assert not np.allclose(drawn[4, 4:8], drawn[5, 5])  # nor are 1 and 4


def entry(place: str, kept: list[int], scores: list[float], merged: bool) -> TraceEntry:
    return TraceEntry(
        place=place,
        layer=None if merged else 1,
        method="m",
        kept=[[torch.tensor(kept)]],
        grid=[[GRID]],
        kind=[["image"]],
        scores=[[torch.tensor(scores)]],
        merged_into=[[torch.tensor(INTO)]] if merged else None,
    )


def test_behind_a_merge_tokens_show_all_that_they_stand_for() -> None:
    seen, gone = picture(), float("nan")
    trace = [
        entry("encoder", [0, 2, 4], [1.0, 2, 3, 4, 5, 6], merged=True),
        entry("decoder", [0], [3.0, gone, 2.0, gone, 1.0, gone], merged=False),
    ]
    (row,) = trace_panels([[seen]], trace)
    assert [panel.title for panel in row[1:]] == [
        "importance, encoder",
        "m: 3 of 6 left, merged, encoder",
        "importance, layer 1",
        "m: 1 of 6 kept, layer 1",
    ]
    assert np.array_equal(row[2].picture, merged_regions(seen, INTO, GRID))
    assert np.array_equal(row[3].picture, heat_map(seen, [3, 3, 2, 3, 1, 2], GRID), equal_nan=True)
    assert spread_kept([0], INTO, GRID).tolist() == [0, 1, 3]
    assert np.array_equal(row[4].picture, dim_dropped(seen, [0, 1, 3], GRID))


@pytest.mark.parametrize(
    ("into", "shape", "words"),
    [
        ([0] * 5, (8, 12, 3), "5 tokens are merged, the grid has 6"),
        ([0] * 5 + [6], (8, 12, 3), "reaches 6"),
        ([0] * 6, (7, 12, 3), "does not fit a picture"),
    ],
)
def test_what_does_not_fit_is_refused(into: list[int], shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        merged_regions(np.zeros(shape, dtype=np.float32), into, GRID)
