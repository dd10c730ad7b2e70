"""Merged tokens are drawn as what they stand for."""

from __future__ import annotations

from dataclasses import replace

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


# -- new tokens that a cut makes -------------------------------------------------------------------

CUT = [0, 0, 2, -1, 0, 5]  # 0 takes 1 and 4, 2 stays, 3 goes, CLS stands in the place of 5


def cut(cls: bool = True) -> TraceEntry:
    into = torch.tensor([0, 0, 0] + [5] * cls)
    of = torch.tensor([0, 1, 4] + [6] * cls)
    return TraceEntry(
        place="features",
        layer=None,
        method="m",
        kept=[[torch.tensor([0, 2, 5])]],
        grid=[[GRID]],
        kind=[["image"]],
        merged_into=[[torch.tensor(CUT)]],
        mix=[[(into, of, torch.ones(len(into)))]],
        space="tower",
    )


def test_tokens_that_stay_are_drawn_as_seen_and_what_goes_is_faint() -> None:
    seen = picture()
    drawn = merged_regions(seen, CUT, GRID, plain=[2, 5])
    assert np.array_equal(drawn[1:4, 9:12], seen[1:4, 9:12])  # cell 2, but its borders
    mean = seen[:8].reshape(2, 4, 3, 4, 3).mean(axis=(1, 3)).reshape(6, 3)[[0, 1, 4]].mean(0)
    for rows, cols in ((slice(1, 4), slice(1, 4)), (slice(5, 8), slice(5, 8))):
        assert np.allclose(drawn[rows, cols], mean, atol=1e-6)
    gone = dim_dropped(seen, [], GRID)
    assert np.array_equal(drawn[5:8, :4], gone[5:8, :4])
    # Borders stand around regions alone: between cells 2 and 5, which stay, there is none.
    assert np.array_equal(drawn[4:8, 9:12], seen[4:8, 9:12])
    assert not np.allclose(drawn[4, :4], gone[4, :4]) and not np.allclose(drawn[:4, 8], seen[:4, 8])


def test_a_token_that_stands_for_several_is_no_patch_as_seen() -> None:
    """It was merged before, and only stays at this cut."""
    seen = picture()
    assert np.array_equal(
        merged_regions(seen, CUT, GRID, plain=[0, 2, 5]),
        merged_regions(seen, CUT, GRID, plain=[2, 5]),
    )


def test_new_tokens_and_cls_are_told_apart() -> None:
    seen = picture()
    (row,) = trace_panels([[seen]], [cut()])
    assert row[1].title == "m: 3 of 6 left, merged, features"
    assert row[1].caption == (
        "1 as they were; 1 made of several (blue borders, mean colour); "
        "1 CLS of the vision tower, in a free place (pink); 1 gone (grey)."
    )
    pink = np.array([1.0, 0.25, 0.65], dtype=np.float32)
    line = (np.abs(row[1].picture - pink) < 1e-6).all(-1)
    assert line[4:8, 8:12].any() and not line[:4].any() and not line[:, :8].any()
    two = replace(cut(), **{n: [2 * getattr(cut(), n)[0]] for n in ("kept", "grid", "kind", "mix")})
    two = replace(two, merged_into=[2 * cut().merged_into[0]])  # type: ignore[index]
    rows = trace_panels([[seen], [seen]], [two])
    assert rows[0][1].caption.startswith("In all 2 images: 2 as they were; 2 made of several")
    assert not rows[1][1].caption
    (other,) = trace_panels([[seen]], [cut(cls=False)])
    assert "CLS" not in other[1].caption and "2 as they were" in other[1].caption
    rest = np.abs(other[1].picture - row[1].picture).max(-1) > 0
    assert not rest[:4].any() and not rest[:, :8].any()


def test_behind_a_cut_that_merged_scores_of_what_is_gone_are_blank() -> None:
    """An owner of -1 is not the last token."""
    seen, gone = picture(), float("nan")
    later = entry("decoder", [0], [3.0, gone, 2.0, gone, gone, 9.0], merged=False)
    (row,) = trace_panels([[seen]], [cut(), later])
    spread = heat_map(seen, [3.0, 3.0, 2.0, gone, 3.0, 9.0], GRID)
    assert np.array_equal(row[2].picture, spread)
    assert np.array_equal(row[3].picture, dim_dropped(seen, [0, 1, 4], GRID))


def test_owners_below_minus_one_are_refused() -> None:
    with pytest.raises(ValueError, match="reaches -2"):
        merged_regions(picture(), [0] * 5 + [-2], GRID)
