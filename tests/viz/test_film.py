"""Contact sheets and animations of videos, on pictures small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunus.errors import PrunusError
from prunus.grid import Grid, Tiles
from prunus.results.trace import TraceEntry
from prunus.viz.animation import write_animation
from prunus.viz.film import Film, clock, sheet_rows

GRID = Grid(2, 2, 3, (4, 4))  # two slices of six tokens, 12 x 8 pixels
KEPT = [0, 5, 7]  # of the first slice two corners, of the second one token
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def entry(kept: list[int], grid: Any = GRID, **more: Any) -> TraceEntry:
    return TraceEntry(
        place="decoder",
        layer=1,
        method="clse",
        kept=[[torch.tensor([0]), torch.tensor(kept)]],
        grid=[[Grid(1, 1, 1, (4, 4)), grid]],
        kind=[["image", "video"]],
        **more,
    )


def everything_leaves() -> TraceEntry:
    nothing = [[torch.tensor([], dtype=torch.int64)] * 2]
    return replace(entry([]), layer=3, kept=nothing)


def frames(count: int = 3, width: int = 12, height: int = 8) -> list[Image.Image]:
    return [Image.new("RGB", (width, height), COLOURS[number % 3]) for number in range(count)]


def film(trace: list[TraceEntry], count: int = 3, grid: Any = GRID) -> Film:
    return Film(frames(count), [number / 2 for number in range(count)], grid, 1, trace)


def kept_in(slice_: int) -> np.ndarray:
    """``[8, 12]``: pixels of the tokens of ``KEPT``."""
    mask = np.zeros((8, 12), dtype=bool)
    for token in KEPT:
        time, rest = divmod(token, 6)
        if time == slice_:
            row, col = divmod(rest, 3)
            mask[4 * row : 4 * row + 4, 4 * col : 4 * col + 4] = True
    return mask


def check(picture: Any, number: int) -> None:
    """Kept patches are as they were, others between their colour and light grey."""
    mask, colour = kept_in(number // 2), np.asarray(COLOURS[number]) / 255
    np.testing.assert_allclose(picture[mask], np.broadcast_to(colour, (mask.sum(), 3)), atol=0.01)
    pale = picture[~mask]
    strongest, weakest = colour.argmax(), colour.argmin()
    assert (pale.max(axis=1) < 0.85).all() and (pale.min(axis=1) > 0.4).all()
    assert (pale[:, strongest] > pale[:, weakest] + 0.1).all()  # one sees what it was


def test_every_frame_with_the_tokens_of_its_slice() -> None:
    """Three frames in two slices: the last is alone in its own."""
    seen = film([entry(KEPT)])
    assert (seen.kept, seen.per_slice, seen.together) == ([2, 1], 6, 2)
    for number, picture in enumerate(seen.drawn()):
        check(picture, number)
    assert seen.titles() == ["0.0 s: 2 of 6", "0.5 s: 2 of 6", "1.0 s: 1 of 6"]
    assert seen.facts() == [
        {"times": [0.0, 0.5], "of": 6, "kept": 2},
        {"times": [1.0], "of": 6, "kept": 1},
    ]


def test_the_last_removal_counts_and_none_leaves_all() -> None:
    assert film([entry(KEPT), entry([5])]).kept == [1, 0]
    gone = film([entry(KEPT), everything_leaves()])
    assert gone.kept == [2, 1] and gone.at_the_end == [0, 0]
    assert [part["kept"] for part in gone.facts()] == [0, 0]
    for number, picture in enumerate(gone.drawn()):
        check(picture, number)
    whole = film([])
    assert whole.kept == [6, 6] and not whole.merges
    for picture, colour in zip(whole.drawn(), COLOURS, strict=True):
        assert (picture == np.asarray(colour, dtype=np.float32) / 255).all()


def test_merged_tokens_are_regions() -> None:
    owners = torch.tensor([0, 0, 0, 5, 5, 5, 7, 7, 7, 7, 7, 7])
    merged = entry(KEPT, merged_into=[[torch.tensor([0]), owners]])
    seen = film([merged])
    assert seen.merges and seen.kept == [2, 1]
    first = next(seen.drawn())
    assert not (first == np.asarray(COLOURS[0], dtype=np.float32) / 255).all()  # borders


def test_frames_in_parts_are_beside_each_other() -> None:
    """Two parts of two slices each: where a token lies is counted through the parts."""
    left = Grid(2, 2, 1, (4, 4), (0, 0, 4, 8))
    right = Grid(2, 1, 1, (4, 4), (4, 0, 8, 8))
    tiles = Tiles((left, right))
    seen = film([entry([1, 2, 5], tiles)], 2, tiles)
    assert (seen.kept, seen.per_slice, seen.together) == ([1, 2], 3, 1)
    first, second = seen.drawn()
    assert first.shape == second.shape == (8, 16, 3)
    red, green = (np.asarray(colour) / 255 for colour in COLOURS[:2])
    np.testing.assert_allclose(first[4:, :4], np.broadcast_to(red, (4, 4, 3)), atol=0.01)
    np.testing.assert_allclose(second[:4, :4], np.broadcast_to(green, (4, 4, 3)), atol=0.01)
    np.testing.assert_allclose(second[:4, 8:12], np.broadcast_to(green, (4, 4, 3)), atol=0.01)
    assert (first[:4, 8:12].min(axis=2) > 0.4).all() and (second[4:, 8:12] == 1).all()


def test_rows_of_a_sheet() -> None:
    rows = sheet_rows([film([entry(KEPT)])], 2, "a note")
    assert [[panel.title for panel in row] for row in rows] == [
        ["0.0 s: 2 of 6", "0.5 s: 2 of 6"],
        ["1.0 s: 1 of 6"],
    ]
    assert [[panel.caption for panel in row] for row in rows] == [["", ""], ["a note"]]
    for number, panel in enumerate(rows[0]):
        check(panel.picture, number)
    large = Film(frames(1), [0.0], Grid(1, 30, 60, (28, 28)), 0, [])
    [[panel]] = sheet_rows([large], 2)
    assert panel.picture.shape == (160, 320, 3)  # not larger than a sheet shows


def test_times_are_written_as_clocks_show_them() -> None:
    written = [clock(seconds) for seconds in (0, 0.25, 59.94, 59.96, 61.5, 3599.96, 36061.04)]
    assert written == ["0.0 s", "0.2 s", "59.9 s", "1:00.0", "1:01.5", "1:00:00.0", "10:01:01.0"]


@pytest.mark.parametrize("name", ["kept.gif", "kept.webp"])
def test_an_animation_shows_what_survives(name: str, tmp_path: Path) -> None:
    path = write_animation([film([entry(KEPT)])], tmp_path / "new" / name)
    with Image.open(path) as animation:
        assert (animation.n_frames, animation.info["loop"]) == (3, 0)
        for number in range(3):
            animation.seek(number)
            animation.load()
            assert animation.info["duration"] == 500
            pixels = np.asarray(animation.convert("RGB"), dtype=np.float32) / 255
            shown = pixels[: 8 * 27, : 12 * 27]  # 12 pixels become 324
            assert pixels.shape[1] == 324 and 230 < pixels.shape[0] < 260
            mask, colour = kept_in(number // 2), np.asarray(COLOURS[number]) / 255
            middle = shown[13::27, 13::27]
            near = np.abs(middle - colour).max(axis=2) < 0.08
            np.testing.assert_array_equal(near, mask)
            words = pixels[8 * 27 :]
            assert words.max() > 0.95 and words.min() < 0.3  # black on white


def test_videos_follow_each_other_on_one_canvas(tmp_path: Path) -> None:
    wide, tall = Grid(1, 2, 4, (4, 4)), Grid(1, 4, 2, (4, 4))
    films = [
        Film(frames(1), [0.0], wide, 0, []),
        Film(frames(1), [0.0], tall, 1, [], video=2),
        Film(frames(2)[1:], [0.01], tall, 2, [], video=2),  # an input for each of its frames
    ]
    with Image.open(write_animation(films, tmp_path / "kept.gif")) as animation:
        assert animation.n_frames == 3 and animation.size[0] == 320 and animation.size[1] > 320
        paces = []
        for number in range(3):
            animation.seek(number)
            paces.append(animation.info["duration"])
        assert paces == [1000, 50, 50]  # a second at most, and no faster than 20 per second


def test_large_frames_are_made_smaller(tmp_path: Path) -> None:
    large = Film(frames(1), [0.0], Grid(1, 30, 60, (28, 28)), 0, [])
    with Image.open(write_animation([large], tmp_path / "kept.gif")) as animation:
        assert animation.size[0] == 640 and animation.size[1] < 360


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(PrunusError, match=r"\.gif or \.webp"):
        write_animation([film([])], tmp_path / "kept.mp4")
    with pytest.raises(PrunusError, match="no video"):
        write_animation([], tmp_path / "kept.gif")
    (tmp_path / "kept.gif").mkdir()
    with pytest.raises(PrunusError, match=r"cannot write the animation .*kept\.gif"):
        write_animation([film([])], tmp_path / "kept.gif")
