"""Qwen2-VL, loaded from disk with its real processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Uniform
from prunus.families import family_of
from prunus.grid import Grid
from tests.conftest import Case
from tests.support.families import QWEN2_VL
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(QWEN2_VL, tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["I", "VI"])
def case(request: pytest.FixtureRequest, loaded: tuple[Any, Any]) -> Case:
    return case_of(QWEN2_VL, loaded, request.param)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(name: str, case: Case) -> None:
    hold(name, case, EvoPrune(keep=0.5))


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    """The processor puts the four patches of a cell behind each other."""
    model, processor = loaded
    inputs = marked_inputs(QWEN2_VL, processor, (90, 43), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"].view(grid.size, 4, 3, -1)
    low, high = (f(pixels, dim=(0, 1, 3), keepdim=True) for f in (torch.amin, torch.amax))
    bright = (pixels > low + 0.3 * (high - low)).flatten(1).any(1)
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), bright.numpy(), square)


@pytest.mark.parametrize("signs", ["I", "V", "VI"])
def test_costs(signs: str, loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(QWEN2_VL, loaded, signs).prompts.rows(2)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, CLSE(keep=5))
    assert report["uncounted"] == {}


def test_a_video_is_one_grid(case: Case) -> None:
    if "V" not in case.prompts.signs:
        pytest.skip("a prompt without a video")
    inputs = case.prompts.rows(2)
    with prunus.prune(case.model, Uniform(keep=5)) as run, torch.no_grad():
        case.model(**inputs)
    assert run.trace[0].grid == [[Grid(2, 4, 6, (8, 8)), Grid(1, 5, 11, (8, 8))]]
    assert run.trace[0].kind == [["video", "image"]]


def test_what_merges_in_the_tower_is_counted(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(QWEN2_VL, loaded, "VI").prompts.rows(2)
    report = assert_costs(model, inputs, EvoPrune(keep=0.5))
    assert report["flops"]["encoder_ratio"] < 1
