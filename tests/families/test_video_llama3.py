"""VideoLLaMA 3, loaded from disk with its real processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Random
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.grid import Grid
from tests.conftest import Case
from tests.support.facts import counts
from tests.support.families import encoded, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.video_llama3 import PATCH, VIDEO_LLAMA3
from tests.support.literal.evoprune import literal
from tests.support.oracles.merged_windows import frames_of, merged_frame
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
    return load(VIDEO_LLAMA3, tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["I", "VI"])
def case(request: pytest.FixtureRequest, loaded: tuple[Any, Any]) -> Case:
    return case_of(VIDEO_LLAMA3, loaded, request.param)


@pytest.mark.parametrize(("signs", "method", "name"), EVERY)
def test_invariants(signs: str, method: str, name: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(VIDEO_LLAMA3, loaded, signs), METHODS[method])


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(name: str, case: Case) -> None:
    hold(name, case, EvoPrune(keep=0.5))


@pytest.mark.parametrize(
    "method",
    [
        EvoPrune(keep=0.4),
        EvoPrune(keep=6, protect=0.5, schedule="mean", start=0),
        EvoPrune(keep=6, schedule="mean", start=0, by_size=False),
    ],
)
def test_merges_what_the_literal_reading_merges(method: EvoPrune, case: Case) -> None:
    """Frame by frame, with one patch for a token of an image and four for one of a video."""
    inputs = case.prompts.rows(2, 1)
    core = case.model.model
    handed = {}
    with prunus.prune(case.model, method) as run, torch.no_grad():
        case.model(**inputs)
        for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            if pixels in inputs:
                read = getattr(core, f"get_{kind}_features")
                sizes = (inputs[f"{kind}_{name}"] for name in ("grid_thw", "merge_sizes"))
                handed[kind] = read(inputs[pixels], *sizes).pooler_output
    (entry,) = run.trace
    kept: dict[str, list[list[int]]] = {}
    for row in zip(entry.kind, entry.kept, strict=True):
        for kind, own in zip(*row, strict=True):
            kept.setdefault(kind, []).append(own.tolist())
    firsts: dict[tuple[str, int], int] = {}
    for kind, number, grid, pixels in frames_of(inputs, 0):
        first = firsts.get((kind, number), 0)
        firsts[kind, number] = first + grid.size
        gone = list(method.merges(4, grid.size, counts(method, grid.size)[0]))
        with torch.no_grad():
            tokens, _ = merged_frame(
                core.vision_model, pixels, grid, literal(method, gone), method.by_size
            )
            own = [n - first for n in kept[kind][number] if 0 <= n - first < grid.size]
            assert own == sorted(tokens)
            for index in range(grid.size):
                wanted = core.projector(tokens[index]) if index in tokens else torch.zeros(64)
                assert gap(handed[kind][number][first + index], wanted) < 1e-4


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = marked_inputs(VIDEO_LLAMA3, processor, (90, 43), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"].view(grid.size, 3, -1)
    low, high = (f(pixels, dim=(0, 2), keepdim=True) for f in (torch.amin, torch.amax))
    bright = (pixels > low + 0.3 * (high - low)).flatten(1).any(1)
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), bright.numpy(), square)


@pytest.mark.parametrize("method", [CLSE(keep=5), EvoPrune(keep=0.5, protect=0.0)])
@pytest.mark.parametrize("signs", ["I", "V", "VI"])
def test_costs(signs: str, method: Any, loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(VIDEO_LLAMA3, loaded, signs).prompts.rows(len(signs))
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, method)
    assert report["uncounted"] == {}
    assert (report["flops"]["encoder_ratio"] < 1) == isinstance(method, EvoPrune)


def test_a_video_is_one_grid_of_larger_cells(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(VIDEO_LLAMA3, processor, "what V is this?")
    ids = inputs["input_ids"][0]
    places = (ids == model.config.video_token_id).nonzero()[:, 0]
    with prunus.prune(model, Random(keep=9, layer=None)) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    (grid,) = run.trace[0].grid[0]
    assert grid == Grid(4, 3, 4, (2 * PATCH, 2 * PATCH)) and len(places) == grid.size
    assert int((places.diff() > 1).sum()) == grid.frames - 1  # times between
    assert cache.layers[0].keys.shape[2] == len(ids) - grid.size + 9


def test_compressed_videos_are_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    still = [picture(48, 32, seed=3)] * 3
    given = {
        "text": f"a{VIDEO_LLAMA3.video}b",
        "videos": [still],
        "do_sample_frames": False,
        "video_metadata": [{"fps": 2, "total_num_frames": 3, "frames_indices": [0, 1, 2]}],
        "return_tensors": "pt",
    }
    whole = dict(processor(**given))
    few = dict(processor(**given, use_token_compression=True))
    assert few["input_ids"].shape[1] < whole["input_ids"].shape[1]
    with prunus.prune(model, CLSE(keep=5)) as run:
        plain(model, whole)
        assert run.report()["tokens"]["kept"] == 5
        with pytest.raises(PrunusError, match="left out 22 of 36 .*use_token_compression=False"):
            plain(model, few)
    plain(model, few)


def test_features_computed_beforehand_need_their_sizes(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(VIDEO_LLAMA3, processor, "a I b I c")
    with prunus.prune(model, CLSE(keep=5)), torch.no_grad():
        expected = plain(model, inputs)
        features = model.model.get_image_features(
            inputs.pop("pixel_values"), inputs["image_grid_thw"], inputs["image_merge_sizes"]
        )
        found = model(**inputs, mm_encoder_outputs={"image": features}).logits
        assert gap(found, expected) < 1e-6
        sizes = inputs.pop("image_merge_sizes")
        with pytest.raises(PrunusError, match="image_grid_thw without image_merge_sizes"):
            model(**inputs, mm_encoder_outputs={"image": features})
        with pytest.raises(PrunusError, match="1 merge sizes for 2 rows of image_grid_thw"):
            model(**inputs, image_merge_sizes=sizes[:1], mm_encoder_outputs={"image": features})
        del inputs["image_grid_thw"]
        with pytest.raises(PrunusError, match="grid as the processor gave it"):
            model(**inputs, mm_encoder_outputs={"image": features})
