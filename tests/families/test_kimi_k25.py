"""Kimi-K2.5, loaded from disk with its real processor."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Random
from prunus.errors import PrunusError
from prunus.families import family_of
from tests.conftest import Case
from tests.support.facts import counts
from tests.support.families import encoded
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.kimi_k25 import KIMI_K25, PATCH
from tests.support.literal.evoprune import literal
from tests.support.oracles.merged_windows import frames_of, merged_frame, projected
from tests.support.runs import gap, plain

ORDINARY = {("I", "before"), ("VI", "released")}
EVERY = [
    pytest.param(
        signs, method, name, marks=[] if (signs, method) in ORDINARY else [pytest.mark.full]
    )
    for signs in ("I", "VI")
    for method in METHODS
    for name in INVARIANTS
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(KIMI_K25, tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["I", "VI"])
def case(request: pytest.FixtureRequest, loaded: tuple[Any, Any]) -> Case:
    return case_of(KIMI_K25, loaded, request.param)


@pytest.mark.parametrize(("signs", "method", "name"), EVERY)
def test_invariants(signs: str, method: str, name: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(KIMI_K25, loaded, signs), METHODS[method])


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(name: str, case: Case) -> None:
    hold(name, case, EvoPrune(keep=0.5))


@pytest.mark.parametrize(
    "method", [EvoPrune(keep=0.4), EvoPrune(keep=6, protect=0.5, schedule="mean", start=0)]
)
def test_merges_what_the_literal_reading_merges(method: EvoPrune, case: Case) -> None:
    """Clip by clip, the patches of all its frames together."""
    inputs = case.prompts.rows(2, 1)
    core = case.model.model
    handed = {}
    with prunus.prune(case.model, method) as run, torch.no_grad():
        case.model(**inputs)
        for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            if pixels in inputs:
                read = getattr(core, f"get_{kind}_features")
                handed[kind] = read(inputs[pixels], inputs[f"{kind}_grid_thw"]).pooler_output
    (entry,) = run.trace
    kept: dict[str, list[list[int]]] = {}
    for row in zip(entry.kind, entry.kept, strict=True):
        for kind, own in zip(*row, strict=True):
            kept.setdefault(kind, []).append(own.tolist())
    for kind, number, grid, pixels in frames_of(inputs, 2, clips=True):
        gone = list(method.merges(4, grid.size, counts(method, grid.size)[0]))
        with torch.no_grad():
            tokens, _ = merged_frame(
                core.vision_tower, pixels, grid, literal(method, gone), method.by_size
            )
            assert kept[kind][number] == sorted(tokens)
            for index in range(grid.size):
                wanted = torch.zeros(64)
                if index in tokens:
                    wanted = projected(case.model, tokens[index])
                assert gap(handed[kind][number][index], wanted) < 1e-4


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (66, 24, 14)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    """In a picture that needs no padding."""
    model, processor = loaded
    inputs = marked_inputs(KIMI_K25, processor, (88, 40), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"].view(grid.rows, 2, grid.cols, 2, 3, PATCH**2)
    pixels = pixels.permute(0, 2, 4, 1, 3, 5).reshape(grid.size, 3, -1)
    low, high = (f(pixels, dim=(0, 2), keepdim=True) for f in (torch.amin, torch.amax))
    bright = (pixels > low + 0.3 * (high - low)).flatten(1).any(1)
    assert_mark_in_boxes(boxes_of(grid, (88, 40)), bright.numpy(), square)


@pytest.mark.parametrize("method", [CLSE(keep=5), EvoPrune(keep=0.5, protect=0.0)])
def test_costs(method: Any, loaded: tuple[Any, Any]) -> None:
    """Keys and values are made of a latent, which is what the cache holds."""
    model = copy.deepcopy(loaded[0])
    inputs = case_of(KIMI_K25, loaded, "I").prompts.rows(1)
    del inputs["attention_mask"]
    model.set_experts_implementation("eager")  # products that torch's counter knows
    report = assert_costs(model, inputs, method)
    assert report["uncounted"] == {}
    assert (report["flops"]["encoder_ratio"] < 1) == isinstance(method, EvoPrune)


def test_a_video_is_one_input_for_each_clip(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(KIMI_K25, processor, "VaV")
    ids = inputs["input_ids"][0]
    with prunus.prune(model, Random(keep=9, layer=None)) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    grids = run.trace[0].grid[0]
    assert [(grid.rows, grid.cols, grid.times) for grid in grids] == [(4, 6, t) for t in (4, 4, 2)]
    assert run.trace[0].kind[0] == ["video"] * 3
    assert int((ids == model.config.video_token_id).sum()) == 3 * 24
    assert cache.layers[0].keys.shape[2] == len(ids) - 3 * (24 - 9)


def test_features_computed_beforehand_need_their_grid(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(KIMI_K25, processor, "a I b I c")
    with prunus.prune(model, CLSE(keep=5)), torch.no_grad():
        expected = plain(model, inputs)
        features = model.model.get_image_features(
            inputs.pop("pixel_values"), inputs["image_grid_thw"]
        )
        found = model(**inputs, mm_encoder_outputs={"image": features}).logits
        assert gap(found, expected) < 1e-6
        del inputs["image_grid_thw"]
        with pytest.raises(PrunusError, match="grid as the processor gave it"):
            model(**inputs, mm_encoder_outputs={"image": features})
