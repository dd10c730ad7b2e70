"""Heat maps, dimmed patches and the PNG, on pictures small enough to check by hand."""

import builtins
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunus.grid import Grid
from prunus.results.trace import TraceEntry
from prunus.viz import Panel, draw_panels, trace_panels
from prunus.viz.overlay import dim_dropped, heat_map, kept_cells, score_cells
from prunus.viz.seen import as_picture, resized_image, seen_images

GRID = Grid(1, 2, 3, (4, 5))  # 8 x 15 pixels


def red(height: int = 8, width: int = 15) -> Any:
    picture = np.zeros((height, width, 3), dtype=np.float32)
    picture[..., 0] = 1.0
    return picture


def entry(kept: list[int], scores: Any = None, layer: int | None = 1) -> TraceEntry:
    return TraceEntry(
        place="decoder layer input" if layer is not None else "features",
        layer=layer,
        method="clse",
        kept=[[torch.tensor(kept)]],
        grid=[[GRID]],
        kind=[["image"]],
        scores=None if scores is None else [[torch.tensor(scores)]],
    )


def test_normalisation_is_undone_exactly() -> None:
    rng = np.random.default_rng(0)
    original = rng.random((2, 6, 7, 3), dtype=np.float32)
    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    pixels = torch.from_numpy(((original - mean) / std).transpose(0, 3, 1, 2)).to(torch.float32)
    seen = seen_images(pixels, SimpleNamespace(do_normalize=True, image_mean=mean, image_std=std))
    assert len(seen) == 2
    np.testing.assert_allclose(seen, original, atol=1e-6)
    plain = torch.from_numpy(original.transpose(0, 3, 1, 2))
    processor = SimpleNamespace(do_normalize=False, image_mean=mean, image_std=std)
    np.testing.assert_allclose(seen_images(plain, processor), original, atol=1e-6)


def test_flattened_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        seen_images(torch.zeros(16, 1176), SimpleNamespace())


def test_pictures_from_images_and_arrays() -> None:
    image = Image.new("L", (15, 8), 255)
    assert as_picture(image).shape == (8, 15, 3)
    assert as_picture(np.full((2, 2, 3), 51, dtype=np.uint8)).max() == pytest.approx(0.2)
    assert resized_image(Image.new("RGB", (90, 90)), GRID).shape == (8, 15, 3)
    with pytest.raises(ValueError, match="no picture"):
        as_picture(np.zeros((4, 4)))


def test_kept_patches_stay_as_they_are_and_dropped_ones_turn_grey() -> None:
    drawn = dim_dropped(red(), torch.tensor([0, 5]), GRID)
    np.testing.assert_array_equal(drawn[:4, :5], red()[:4, :5])  # token 0: first row, first column
    np.testing.assert_array_equal(drawn[4:, 10:], red()[4:, 10:])  # token 5: second row, last
    dropped = drawn[:4, 5:]
    assert np.ptp(dropped, axis=-1).max() == 0  # grey
    assert dropped.min() > 0.5  # and faint


def test_kept_indices_and_scores_must_fit_the_grid() -> None:
    assert kept_cells([1], GRID).tolist() == [False, True, False, False, False, False]
    with pytest.raises(ValueError, match="6 tokens"):
        kept_cells([6], GRID)
    with pytest.raises(ValueError, match="grid of 6"):
        score_cells([1.0] * 5, GRID)
    with pytest.raises(ValueError, match="does not fit a picture"):
        dim_dropped(red(7, 15), [0], GRID)


def test_scores_become_ranks_with_equal_ranks_for_ties() -> None:
    cells = score_cells([5.0, -1.0, 100.0, 2.0, 2.0, 3.0], GRID).reshape(-1)
    np.testing.assert_allclose(cells, [0.8, 0.0, 1.0, 0.3, 0.3, 0.6], atol=1e-6)
    assert score_cells([7.0] * 6, GRID).reshape(-1).tolist() == [0.5] * 6


def test_tokens_that_were_gone_before_have_no_rank() -> None:
    nan = float("nan")
    cells = score_cells([nan, 1.0, nan, 3.0, 2.0, nan], GRID).reshape(-1)
    assert np.isnan(cells).tolist() == [True, False, True, False, False, True]
    np.testing.assert_allclose(cells[[1, 4, 3]], [0.0, 0.5, 1.0])
    drawn = heat_map(red(), [nan, 1.0, nan, 3.0, 2.0, nan], GRID)
    assert not np.isnan(drawn).any()
    assert np.ptp(drawn[:4, :5], axis=-1).max() == 0


def test_the_best_token_is_the_brightest() -> None:
    drawn = heat_map(red(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], GRID)
    brightness = [drawn[y : y + 4, x : x + 5].mean() for y in (0, 4) for x in (0, 5, 10)]
    assert brightness == sorted(brightness)


def test_pixels_beyond_the_grid_belong_to_no_token() -> None:
    drawn = dim_dropped(red(10, 17), list(range(6)), GRID)
    np.testing.assert_array_equal(drawn[:8, :15], red(8, 15))
    assert np.ptp(drawn[8:], axis=-1).max() == 0


def test_one_row_per_image_with_every_stage() -> None:
    trace = [entry([0, 1, 2], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), entry([1], layer=None)]
    [row] = trace_panels([[red()]], trace)
    assert [panel.title for panel in row] == [
        "as the model saw it",
        "importance, layer 1",
        "clse: 3 of 6 kept, layer 1",
        "clse: 1 of 6 kept, features",
    ]
    with pytest.raises(ValueError, match="picture 2"):
        trace_panels([[red()], [red()]], trace)
    with pytest.raises(ValueError, match="slices"):
        trace_panels([[red(), red()]], trace)


def test_one_png_with_all_panels(tmp_path: Path) -> None:
    panel = Panel(red(), "title", "a caption that is long enough to be broken\nsecond line")
    path = draw_panels([[panel, panel], [panel]], tmp_path / "new" / "a.png", title="all")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 2 * 300 and image.height > 2 * 300  # two by two panels
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (pixels == [255, 0, 0]).all(axis=1).mean() > 0.2


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no panels"):
        draw_panels([], tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"\.png"):
        draw_panels([[Panel(red(), "")]], tmp_path / "a.jpg")
    real = builtins.__import__

    def without_matplotlib(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ValueError, match="pip install matplotlib"):
        draw_panels([[Panel(red(), "")]], tmp_path / "a.png")
