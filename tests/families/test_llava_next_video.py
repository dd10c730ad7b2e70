"""LLaVA-NeXT-Video, loaded from disk with its real processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Uniform
from prunus.errors import PrunusError
from prunus.families import family_of
from tests.conftest import Case
from tests.support.families import TILE, encoded, marked, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.llava_next_video import (
    FRAMES,
    LLAVA_NEXT_VIDEO,
    POOLED,
    llava_next_video,
)
from tests.support.real_prompts import packed_numbers


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(LLAVA_NEXT_VIDEO, tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["I", "VI"])
def case(request: pytest.FixtureRequest, loaded: tuple[Any, Any]) -> Case:
    return case_of(LLAVA_NEXT_VIDEO, loaded, request.param)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])


@pytest.mark.parametrize("size", [(88, 40), (33, 97)])
def test_images_are_those_of_llava_next(size: tuple[int, int], loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = processor(images=picture(*size), text="a<image>b", return_tensors="pt")
    family = family_of(model)
    (grid,) = family.grids_of(inputs)["image"]
    cells = family.cells(grid)
    packed = packed_numbers(model, size[::-1])
    assert (cells < 0).tolist() == [number < 0 for number in packed]
    assert len(cells) == int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert len(family.tower_grids(grid)) == inputs["pixel_values"].shape[1]


SQUARES: list[Square] = [(0, 0, 12), (30, 50, 15), (70, 25, 15), (50, 50, 20)]


def test_a_mark_in_a_frame_lies_in_its_pooled_cells(loaded: tuple[Any, Any]) -> None:
    """Squares of 2 x 2 patches become one cell."""
    model, processor = loaded
    frames = [marked(90, 90, *square) for square in SQUARES]
    given = {"videos": [frames], "do_sample_frames": False, "return_tensors": "pt"}
    inputs = processor(text="a<video>?", **given)
    family = family_of(model)
    (grid,) = family.grids_of(inputs)["video"]
    assert (grid.frames, grid.rows, grid.cols) == (FRAMES, POOLED, POOLED)
    assert family.cells(grid).tolist() == list(range(grid.size))
    assert (inputs["input_ids"] == model.config.video_token_id).sum() == grid.size
    boxes, each = boxes_of(grid, (90, 90)), POOLED**2
    for number, square in enumerate(SQUARES):
        pixels = inputs["pixel_values_videos"][0, number, 0]
        side = TILE // POOLED
        patches = pixels.unfold(0, side, side).unfold(1, side, side).reshape(each, -1)
        bright = (patches > (pixels.min() + pixels.max()) / 2).any(1).numpy()
        if not bright.all():
            own = boxes[number * each : (number + 1) * each]
            assert_mark_in_boxes(own, bright, square)


@pytest.mark.parametrize("signs", ["I", "V", "VI"])
def test_costs(signs: str, loaded: tuple[Any, Any]) -> None:
    """The projector works on what pooling left of a frame, and on all of a tile."""
    model, _ = loaded
    inputs = case_of(LLAVA_NEXT_VIDEO, loaded, signs).prompts.rows(2 if signs != "V" else 1)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, CLSE(keep=5))
    assert report["uncounted"] == {}


def test_pooling_by_convolution_works_but_is_not_counted() -> None:
    model, processor = llava_next_video("conv")
    inputs = encoded(LLAVA_NEXT_VIDEO, processor, "a V?")
    with prunus.prune(model, Uniform(keep=5)) as run, torch.no_grad():
        model(**inputs)
    report = run.report()
    assert report["tokens"]["original"] == FRAMES * POOLED**2
    assert "spatial_pool_mode='conv'" in str(report["uncounted"])


def test_what_is_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    with pytest.raises(PrunusError, match="vision tower.*llava-next-video.*pools frames"):
        prunus.prune(model, EvoPrune(keep=5)).attach()
    inputs = encoded(LLAVA_NEXT_VIDEO, processor, "what V is this?")
    videos = inputs.pop("pixel_values_videos")
    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        with pytest.raises(PrunusError, match="give .videos, frames"):
            model.generate(**inputs, pixel_values_videos=videos[0])
        features = {"video": model.model.get_video_features(videos)}
        with pytest.raises(PrunusError, match="video placeholders, but the call does not say"):
            model(**inputs, mm_encoder_outputs=features)
