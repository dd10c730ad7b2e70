"""ViP-LLaVA, loaded from disk with its real processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from prunus import CLSE
from prunus.families import family_of
from tests.support.family_checks import (
    Square,
    assert_check_passes,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.vip_llava import PATCH, VIP_LLAVA
from tests.support.models import Case


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(VIP_LLAVA, tmp_path_factory.mktemp("model"))


@pytest.fixture
def case(loaded: tuple[Any, Any]) -> Case:
    return case_of(VIP_LLAVA, loaded, "I")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = marked_inputs(VIP_LLAVA, processor, (90, 43), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"][0, 0]  # [64, 64] of one channel
    patches = pixels.unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).reshape(grid.size, -1)
    bright = (patches > (pixels.min() + pixels.max()) / 2).any(1)
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), bright.numpy(), square)


def test_what_enters_the_projector_is_what_selectors_read(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    family = family_of(model)
    seen: list[torch.Tensor] = []
    handle = family.projector.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**case_of(VIP_LLAVA, loaded, "I").prompts.rows(1))
    handle.remove()
    assert seen[0].shape[-1] == family.feature_width == 2 * 32


def test_costs(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(VIP_LLAVA, loaded, "I").prompts.rows(2)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, CLSE(keep=5))
    assert report["uncounted"] == {}


def test_a_check_of_the_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    VIP_LLAVA.save(tmp_path)
    assert_check_passes(tmp_path, capsys, {"evoprune", "tome"})
