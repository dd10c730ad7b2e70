"""Video-LLaVA, loaded from disk with its real processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import prunus
from prunus import CLSE, EvoPrune, Fixed, Method, Uniform
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.pruners.tome import ToMe
from prunus.pruners.visionzip import VisionZip
from prunus.viz.as_seen import pictures_as_seen
from tests.conftest import Case
from tests.support.families import WIDE, encoded, marked, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.video_llava import CELLS, FRAMES, PATCH, SIDE, VIDEO_LLAVA


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(VIDEO_LLAVA, tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["I", "VI"])
def case(request: pytest.FixtureRequest, loaded: tuple[Any, Any]) -> Case:
    return case_of(VIDEO_LLAVA, loaded, request.param)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(name: str, case: Case) -> None:
    hold(name, case, EvoPrune(keep=0.5))


TOWER = {"tome": ToMe(keep=6, proportional=True), "visionzip": VisionZip(keep=8)}
STEPS = "prefill_equals_the_masked_full_length_run", "rows_of_a_batch_equal_the_rows_alone"


@pytest.mark.parametrize("method", TOWER)
@pytest.mark.parametrize("name", STEPS)
def test_invariants_of_looks_at_the_tower(name: str, method: str, case: Case) -> None:
    hold(name, case, TOWER[method])


def test_a_video_keeps_the_cls_token_of_each_frame(loaded: tuple[Any, Any]) -> None:
    """The unmodified model's features say which placeholders they are."""
    model, processor = loaded
    inputs = encoded(VIDEO_LLAVA, processor, "a V and I?")
    family, core = family_of(model), model.model
    grids = family.grids_of(inputs)
    (video,), (image,) = grids["video"], grids["image"]
    numbers = torch.arange(FRAMES * (CELLS + 1)).view(FRAMES, CELLS + 1, 1) * torch.ones(64)
    hook = core.multi_modal_projector.register_forward_hook(lambda *_: numbers)
    given = core.get_video_features(inputs["pixel_values_videos"]).pooler_output.flatten(0, 1)
    hook.remove()
    first = [int(number) % (CELLS + 1) == 0 for number in given[:, 0]]
    assert (family.cells(video) < 0).tolist() == first and sum(first) == FRAMES
    assert family.cells(image).tolist() == list(range(CELLS))
    with prunus.prune(model, Uniform(keep=5, layer=None)) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    assert run.trace[0].kind == [["video", "image"]]
    assert [grid.frames for grid in run.trace[0].grid[0]] == [FRAMES, 1]
    rows = inputs["input_ids"].shape[1] - FRAMES * CELLS - CELLS + 5 + 5
    assert cache.layers[0].keys.shape[2] == rows


def test_with_full_features_an_image_keeps_its_cls_token_too(tmp_path: Path) -> None:
    model, processor = VIDEO_LLAVA.build()
    model.config.vision_feature_select_strategy = processor.vision_feature_select_strategy = "full"
    inputs = encoded(VIDEO_LLAVA, processor, "a I?")
    (grid,) = family_of(model).grids_of(inputs)["image"]
    assert family_of(model).cells(grid).tolist() == [-1, *range(CELLS)]
    with prunus.prune(model, Fixed([0, 9])) as run, torch.no_grad():
        model(**inputs)
    assert run.report()["tokens"]["original"] == CELLS
    assert_costs(model, {"input_ids": inputs["input_ids"], **_pixels(inputs)}, EvoPrune(keep=8))


def _pixels(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name.startswith("pixel_values")}


SQUARES = [(0, 0, 12), (30, 10, 15), (70, 25, 15)]


@pytest.mark.parametrize("square", SQUARES)
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = marked_inputs(VIDEO_LLAVA, processor, (90, 90), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    (pixels,) = next(iter(_pixels(inputs).values()))
    assert_mark_in_boxes(boxes_of(grid, (90, 90)), _bright(pixels).numpy(), square)


def test_a_mark_in_a_frame_lies_in_the_cells_of_that_frame(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    frames = [marked(90, 90, *square) for square in SQUARES]
    text = f"a{VIDEO_LLAVA.video}?"
    inputs = processor(videos=[frames], text=text, do_sample_frames=False, return_tensors="pt")
    (grid,) = family_of(model).grids_of(inputs)["video"]
    assert [grid.box(number)[0] for number in range(grid.size)] == sorted([*range(3)] * CELLS)
    boxes = boxes_of(grid, (90, 90))
    for number, square in enumerate(SQUARES):
        bright = _bright(inputs["pixel_values_videos"][0, number]).numpy()
        own = slice(number * CELLS, (number + 1) * CELLS)
        assert_mark_in_boxes(boxes[own], bright, square)


def _bright(pixels: torch.Tensor) -> torch.Tensor:
    """Bool ``[N]``, which patches of ``[3, 32, 32]`` have a bright pixel."""
    patches = pixels[0].unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).reshape(CELLS, -1)
    return (patches > (pixels[0].min() + pixels[0].max()) / 2).any(1)


def test_pictures_are_shown_as_the_processor_cropped_them(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    original = picture(*WIDE)
    inputs = encoded(VIDEO_LLAVA, processor, "a V, I?")
    (grid,) = family_of(model).grids_of(inputs)["image"]
    ((seen,),) = pictures_as_seen(processor, inputs, [[original]], [grid])
    width, height = (SIDE * size // min(original.size) for size in original.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    whole = original.resize((width, height), Image.Resampling.BICUBIC)
    cropped = np.asarray(whole.crop((left, top, left + SIDE, top + SIDE)))
    assert np.abs(seen - cropped / 255).mean() < 0.02


@pytest.mark.parametrize("method", [CLSE(keep=5), EvoPrune(keep=0.5)], ids=["clse", "evoprune"])
@pytest.mark.parametrize("signs", ["I", "V", "VI"])
def test_costs(signs: str, method: Method, loaded: tuple[Any, Any]) -> None:
    """Each frame is a pass of the tower, and what merges in it makes that pass cheaper."""
    model, _ = loaded
    inputs = case_of(VIDEO_LLAVA, loaded, signs).prompts.rows(2 if signs != "V" else 1)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, method)
    assert report["uncounted"] == {}


def test_features_from_outside(loaded: tuple[Any, Any]) -> None:
    """Videos have no one size: without pixels, nothing says how many frames there are."""
    model, processor = loaded
    inputs = encoded(VIDEO_LLAVA, processor, "a I and V?")
    core = model.model
    pixels = _pixels(inputs)
    with torch.no_grad():
        features = {
            "image": core.get_image_features(next(v for v in pixels.values() if v.ndim == 4)),
            "video": core.get_video_features(pixels["pixel_values_videos"]),
        }
    for name in pixels:
        del inputs[name]
    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        with pytest.raises(PrunusError, match="video placeholders, but the call does not say"):
            model(**inputs, mm_encoder_outputs=features)
    inputs = encoded(VIDEO_LLAVA, processor, "a I?")
    with prunus.prune(model, Uniform(keep=5)) as run, torch.no_grad():
        expected = model(**inputs).logits
        alone = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        features = {"image": core.get_image_features(next(iter(_pixels(inputs).values())))}
        logits = model(**alone, mm_encoder_outputs=features).logits
    torch.testing.assert_close(logits, expected)
    assert run.report()["pruned"]


def test_what_is_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(VIDEO_LLAVA, processor, "what V is this?")
    videos = inputs["pixel_values_videos"]
    with prunus.prune(model, Uniform(keep=5)):
        with pytest.raises(PrunusError, match=r"\(3, 3, 32, 32\): give \[videos, frames"):
            model.generate(**{**inputs, "pixel_values_videos": videos[0]})
    other, _ = VIDEO_LLAVA.build()
    other.config.vision_config.model_type = "siglip_vision_model"
    with pytest.raises(PrunusError, match="siglip_vision_model.*must begin with a CLS token"):
        prunus.prune(other, Uniform(keep=5))
    several, _ = VIDEO_LLAVA.build()
    several.config.vision_feature_layer = [-2, 1]
    with pytest.raises(PrunusError, match="joins features of several blocks"):
        prunus.prune(several, EvoPrune(keep=0.5)).attach()
