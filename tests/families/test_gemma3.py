"""Gemma 3, loaded from disk with its real processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

import prunus
from prunus import CLSE, EvoPrune, Method, Random, Uniform
from prunus.engine.cache import PrunedWindowLayer
from prunus.errors import PrunusError
from prunus.families import family_of
from tests.conftest import Case
from tests.support.families import DEPTH, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.gemma3 import GEMMA3, PATCH, POOLED, SIDE, WINDOW, gemma3
from tests.support.oracles.masked import continued, masked_logits, visibility
from tests.support.runs import decoded, gap, plain, survivors

ORDINARY = {"before", "released"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(GEMMA3, tmp_path_factory.mktemp("model"))


@pytest.fixture
def case(loaded: tuple[Any, Any]) -> Case:
    return case_of(GEMMA3, loaded, "I")


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m in ORDINARY else pytest.mark.full) for m in METHODS]
)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])


def test_a_window_that_holds_the_prompt_can_be_cropped() -> None:
    """The one invariant that cannot be held where windows are full."""
    model, processor = gemma3(window=512)
    case = case_of(GEMMA3, (model, processor), "I")
    hold("cache_can_be_repeated_and_cropped", case, METHODS["released"])


FAR: dict[str, list[Method]] = {
    "before": [Random(keep=4, layer=None)],
    "inside, twice": [Random(keep=9, layer=1), Random(keep=3, layer=3)],
    "trimmed": [CLSE(keep=6, variant="released")],
}


@pytest.mark.parametrize("rows", [(1,), (2, 0, 1)])
@pytest.mark.parametrize("name", FAR)
def test_decoding_far_beyond_the_window(name: str, rows: tuple[int, ...], case: Case) -> None:
    """Six windows of answer: the layers forget the picture, what was left of it and then the first
    words of the answer, at the positions at which the full-length run does."""
    inputs = case.prompts.rows(*rows)
    run, difference = decoded(case, FAR[name], inputs, 6 * WINDOW)
    assert difference < 1e-4 and run.report()["pruned"]


def test_windows_let_go_step_by_step(case: Case) -> None:
    """At each step a layer with a window holds what the next token sees, the others everything."""
    inputs = case.prompts.rows(1)
    length = inputs["input_ids"].shape[1]
    (spots,) = case.prompts.spots(inputs["input_ids"])[0]
    with prunus.prune(case.model, Random(keep=5, layer=None)) as run, torch.no_grad():
        cache = case.model(**inputs, use_cache=True).past_key_values
        gone = set(spots) - {spots[n] for n in run.trace[0].kept[0][0].tolist()}
        left = [place for place in range(length) if place not in gone]
        for token in range(3, 3 + 2 * WINDOW):
            for layer in cache.layers:
                first = 0
                if isinstance(layer, PrunedWindowLayer):
                    first = max(0, len(left) + len(gone) - WINDOW + 1)
                wanted = [place for place in left if place >= first]
                assert layer.places(0).tolist() == [wanted]
                assert layer.keys.shape[2] == len(wanted)
            case.model(input_ids=torch.tensor([[token]]), past_key_values=cache)
            left.append(len(left) + len(gone))
    assert sum(isinstance(layer, PrunedWindowLayer) for layer in cache.layers) == 4


def test_closed_positions_before_the_language_model(case: Case) -> None:
    """Windows count positions of the whole prompt all the same."""
    inputs, steps = case.prompts.rows(2, 1), 3 * WINDOW
    with prunus.prune(case.model, FAR["before"][0], positions="compact") as run:
        out = case.model.generate(
            **inputs,
            max_new_tokens=steps,
            min_new_tokens=steps,
            output_logits=True,
            return_dict_in_generate=True,
        )
    length = inputs["input_ids"].shape[1]
    full = continued(inputs, out.sequences)
    spots = case.prompts.spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, length)
    there = full["attention_mask"].bool()
    there[:, :length] &= survivors(case, inputs, run.trace)
    closed = {**full, "position_ids": (there.cumsum(1) - 1).clamp(min=0)}
    expected = masked_logits(case.model, closed, visible)[:, length - 1 : -1]
    assert gap(torch.stack(out.logits, dim=1), expected) < 1e-4


def test_images_see_themselves_in_both_directions(loaded: tuple[Any, Any], case: Case) -> None:
    """Or the oracles would not tell: without it, logits are others, pruned or not."""
    model, _ = loaded
    inputs = case.prompts.rows(1)
    causal = {**inputs, "token_type_ids": 0 * inputs["token_type_ids"]}
    for method in (Uniform(keep=1.0), Uniform(keep=9)):
        with prunus.prune(model, method):
            assert gap(plain(model, inputs), plain(model, causal)) > 1e-2


def test_what_pan_and_scan_cuts_out_are_images_of_their_own(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = processor(
        text=f"a{GEMMA3.image}b",
        images=[[picture(200, 60)]],
        return_tensors="pt",
        images_kwargs={
            "do_pan_and_scan": True,
            "pan_and_scan_min_crop_size": 16,
            "pan_and_scan_max_num_crops": 3,
            "pan_and_scan_min_ratio_to_activate": 1.2,
        },
    )
    count = len(inputs["pixel_values"])
    assert count == 4  # the picture, and three crops
    case = case_of(GEMMA3, loaded, "I")
    with prunus.prune(model, CLSE(keep=5)) as run:
        plain(model, inputs)
    assert [len(kept) for kept in run.trace[0].kept[0]] == [5] * count
    assert len(case.prompts.spots(inputs["input_ids"])[0]) == count


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = marked_inputs(GEMMA3, processor, (90, 43), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    cell = PATCH * POOLED
    assert (grid.rows, grid.cols, grid.cell) == (SIDE // cell, SIDE // cell, (cell, cell))
    pixels = inputs["pixel_values"][0, 0]  # of one channel
    cells = pixels.unfold(0, cell, cell).unfold(1, cell, cell).reshape(grid.size, -1)
    bright = (cells > pixels.min() + 0.3 * (pixels.max() - pixels.min())).any(1)
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), bright.numpy(), square)


def test_costs(loaded: tuple[Any, Any]) -> None:
    """Bytes of windows that are shorter than the prompt included."""
    model, _ = loaded
    inputs = case_of(GEMMA3, loaded, "I").prompts.rows(2)
    assert inputs["input_ids"].shape[1] > 2 * WINDOW
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, Uniform(keep=5))
    assert report["uncounted"] == {}
    cache = DynamicCache(config=model.config.get_text_config())
    plain(model, {**inputs, "past_key_values": cache})
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert report["kv_bytes"]["dense"] == held


def test_what_is_refused(loaded: tuple[Any, Any], case: Case) -> None:
    model, _ = loaded
    with pytest.raises(PrunusError, match="vision tower.*gemma3.*averages squares of patches"):
        prunus.prune(model, EvoPrune(keep=5)).attach()
    inputs = case.prompts.rows(1)
    with prunus.prune(model, Uniform(keep=5)) as run, torch.no_grad():
        expected = model(**inputs).logits
        features = {"image": model.get_image_features(inputs.pop("pixel_values"))}
        assert gap(model(**inputs, mm_encoder_outputs=features).logits, expected) < 1e-6
        assert len(run.trace[0].kept[0]) == 1
