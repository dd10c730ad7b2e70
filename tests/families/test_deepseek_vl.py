"""DeepSeek-VL, loaded from disk with its real processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Uniform
from prunus.cli import main
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.viz.as_seen import pictures_as_seen
from tests.support.families import WIDE, encoded, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.deepseek_vl import DEEPSEEK_VL, PATCH, SIDE

ORDINARY = ("before", "released")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(DEEPSEEK_VL, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    "method",
    [pytest.param(n, marks=() if n in ORDINARY else pytest.mark.full) for n in METHODS],
)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(DEEPSEEK_VL, loaded, "I"), METHODS[method])


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(name: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(DEEPSEEK_VL, loaded, "I"), EvoPrune(keep=0.5))


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
@pytest.mark.parametrize("size", [(88, 40), (90, 90), (90, 130)])
def test_a_mark_lies_in_the_boxes_of_its_cells(
    size: tuple[int, int], square: Square, loaded: tuple[Any, Any]
) -> None:
    """The picture is padded to a square, and boxes are those of that square."""
    model, processor = loaded
    inputs = marked_inputs(DEEPSEEK_VL, processor, size, square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"][0]
    # Padding has the colour of the mean, which is 0, and the mark is brighter.
    bright = (pixels > pixels.max() / 2).any(0)
    cells = bright.unflatten(0, (4, -1)).unflatten(2, (4, -1)).any(3).any(1).flatten()
    longest = max(size)
    left, top = square[0] + (longest - size[0]) / 2, square[1] + (longest - size[1]) / 2
    boxes = boxes_of(grid, (longest, longest))
    moved = (int(left), int(top), square[2])
    assert_mark_in_boxes(boxes, cells.numpy(), moved)
    ((seen,),) = pictures_as_seen(processor, inputs, [], [grid])
    assert seen.shape == (SIDE, SIDE, 3)
    middle = [round((at + square[2] / 2) * SIDE / longest) for at in (top, left)]
    assert seen[middle[0], middle[1]].min() > 0.9


@pytest.mark.parametrize("method", [CLSE(keep=5), EvoPrune(keep=0.5)])
def test_costs(method: Any, loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(DEEPSEEK_VL, loaded, "I").prompts.rows(2)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, method)
    assert report["uncounted"] == {}


def test_kept_tokens_are_drawn(
    loaded: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, processor = loaded
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    picture(*WIDE).save(tmp_path / "a.png")
    overlay = tmp_path / "kept.png"
    arguments = ["run", str(tmp_path / "a.png"), "--prompt", "what?", "--keep", "9"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--model", str(tmp_path / "model"), "--save-overlay", str(overlay)])
    assert not end.value.code and overlay.stat().st_size > 1000


def test_features_computed_beforehand(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(DEEPSEEK_VL, processor, "what I is I this?")
    with prunus.prune(model, CLSE(keep=5)) as run, torch.no_grad():
        expected = model(**inputs).logits
        features = {"image": model.model.get_image_features(inputs.pop("pixel_values"))}
        assert torch.equal(model(**inputs, mm_encoder_outputs=features).logits, expected)
    side = SIDE // PATCH
    assert {grid.size for grid in run.trace[0].grid[0]} == {side**2}


def test_what_is_refused() -> None:
    other, _ = DEEPSEEK_VL.build()
    other.config.vision_config.model_type = "clip_vision_model"
    with pytest.raises(PrunusError, match="'clip_vision_model' vision tower is not supported"):
        prunus.prune(other, Uniform(keep=5))
