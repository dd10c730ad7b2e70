"""LLaVA-NeXT, loaded from disk with its real processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Fixed, Uniform
from prunus.cli import main
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.grid import Grid
from prunus.viz import as_picture, resized_image, trace_panels
from prunus.viz.as_seen import pictures_as_seen
from tests.conftest import Case
from tests.support.families import LLAVA_NEXT, PATCH, TILE, encoded, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.real_prompts import packed_numbers


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(LLAVA_NEXT, tmp_path_factory.mktemp("model"))


@pytest.fixture
def case(loaded: tuple[Any, Any]) -> Case:
    return case_of(LLAVA_NEXT, loaded, "I")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])


SIZES_SEEN = [
    (88, 40),
    (48, 32),
    (40, 72),
    (33, 97),
    (97, 33),
    (64, 64),
    (200, 31),
    (7, 5),
    (50, 51),
]


@pytest.mark.parametrize("size", SIZES_SEEN)
def test_cells_are_where_the_model_packs_them(
    size: tuple[int, int], loaded: tuple[Any, Any]
) -> None:
    """The unmodified model packs features that are numbers; which of them are newlines, and how
    many the processor leaves room for, is what the adapter says."""
    model, processor = loaded
    width, height = size
    inputs = processor(images=picture(width, height), text="a<image>b", return_tensors="pt")
    family = family_of(model)
    (grid,) = family.grids_of(inputs)["image"]
    packed = packed_numbers(model, (height, width))
    cells = family.cells(grid)
    assert (cells < 0).tolist() == [number < 0 for number in packed]
    assert len(cells) == int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert cells[cells >= 0].tolist() == list(range(grid.size))
    assert len(family.tower_grids(grid)) == inputs["pixel_values"].shape[1]


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
@pytest.mark.parametrize("size", [(88, 40), (90, 64), (120, 50)])
def test_a_mark_lies_in_the_boxes_of_its_cells(
    size: tuple[int, int], square: Square, loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    inputs = marked_inputs(LLAVA_NEXT, processor, size, square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"][0]
    low, high = (f(pixels, dim=(0, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    bright = pixels > low + 0.3 * (high - low)
    side = TILE // PATCH
    tiles = bright.any(1).unflatten(1, (side, PATCH)).unflatten(3, (side, PATCH))
    patches = tiles.any(4).any(2).flatten()  # by tile, row and column
    packed = [n for n in packed_numbers(model, size[::-1]) if n >= 0]
    boxes = boxes_of(grid, size)
    assert boxes[:16].min() == 0 and boxes[:16].max(0).tolist()[2:] == list(size)
    assert_mark_in_boxes(boxes[:16], patches[packed[:16]].numpy(), square)
    assert_mark_in_boxes(boxes[16:], patches[packed[16:]].numpy(), square)


def test_newlines_are_text_that_is_always_kept(case: Case) -> None:
    inputs = case.prompts.rows(1)
    ids = inputs["input_ids"][0]
    with prunus.prune(case.model, Uniform(keep=5, layer=None)) as run, torch.no_grad():
        cache = case.model(**inputs, use_cache=True).past_key_values
    cells = len(case.prompts.spots(inputs["input_ids"])[0][0])
    placeholders = int((ids == case.model.config.image_token_id).sum())
    (tiles,) = run.trace[0].grid[0]
    assert placeholders - cells == tiles.parts[1].rows > 0
    assert run.report()["tokens"]["original"] == cells
    assert cache.layers[0].keys.shape[2] == len(ids) - cells + 5


def test_one_budget_for_all_parts_of_an_image(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, CLSE(keep=0.25)) as run, torch.no_grad():
        case.model(**inputs)
    sizes = [[len(places) for places in row] for row in case.prompts.spots(inputs["input_ids"])]
    assert [[len(kept) for kept in row] for row in run.trace[0].kept] == [
        [size // 4 for size in row] for row in sizes
    ]
    assert [[grid.size for grid in row] for row in run.trace[0].grid] == sizes


def test_costs(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAVA_NEXT, processor, "what I is I this?")
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, CLSE(keep=5))
    assert report["uncounted"] == {} and report["flops"]["dense"]["method"] == 0


def test_kept_tokens_are_drawn_where_they_lie(
    loaded: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, processor = loaded
    image = picture(88, 40)
    inputs = processor(images=image, text="a<image>b", return_tensors="pt")
    with prunus.prune(model, Fixed([0, 5, 16, 30])) as run, torch.no_grad():
        model(**inputs)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    (seen,) = pictures_as_seen(processor, inputs, [[image]], [grid])
    assert [one.shape for one in seen] == [(32, 32, 3), (32, 64, 3)]
    rows = trace_panels([seen], run.trace)
    assert [row[0].title for row in rows] == [
        "as the model saw it, part 1",
        "as the model saw it, part 2",
    ]
    for row, picture_of_part, kept in zip(rows, seen, ([0, 5], [0, 14]), strict=True):
        drawn = row[-1].picture
        assert row[-1].title.startswith("fixed: 2 here, 4 of 48 kept")
        for index in range(picture_of_part.shape[1] // PATCH * 4):
            top, left = (PATCH * n for n in divmod(index, picture_of_part.shape[1] // PATCH))
            cell = slice(top, top + PATCH), slice(left, left + PATCH)
            same = np.array_equal(drawn[cell], picture_of_part[cell])
            assert same == (index in kept)
    # The same through the command line.
    LLAVA_NEXT.save(tmp_path / "model")
    image.save(tmp_path / "a.png")
    overlay = tmp_path / "kept.png"
    arguments = ["run", str(tmp_path / "a.png"), "--prompt", "what?", "--keep", "9"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--model", str(tmp_path / "model"), "--save-overlay", str(overlay)])
    assert not end.value.code and overlay.stat().st_size > 1000


def test_a_part_that_reaches_over_the_edge_is_black_there() -> None:
    image = picture(40, 20)
    seen = resized_image(image, Grid(1, 2, 4, (10, 10), (-10.0, 0.0, 40.0, 20.0)))
    assert seen.shape == (20, 40, 3) and not seen[:, :9].any()
    np.testing.assert_array_equal(seen[:, 10:], as_picture(image)[:, :30])


def test_what_is_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    with pytest.raises(PrunusError, match="vision tower.*llava-next.*cuts tokens that are padding"):
        prunus.prune(model, EvoPrune(keep=5)).attach()
    inputs = encoded(LLAVA_NEXT, processor, "what I is this?")
    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        with pytest.raises(PrunusError, match="image_sizes has shape"):
            model.generate(**{**inputs, "image_sizes": inputs["image_sizes"][0]})
        features = {
            "image": model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
        }
        del inputs["pixel_values"]
        model(**inputs, mm_encoder_outputs=features)
        with pytest.raises(PrunusError, match="does not say how large"):
            model(**{**inputs, "image_sizes": None}, mm_encoder_outputs=features)
    other, _ = LLAVA_NEXT.build()
    other.config.vision_feature_select_strategy = "full"
    with pytest.raises(PrunusError, match="clip_vision_model.*'full' is not supported"):
        prunus.prune(other, Uniform(keep=5))
