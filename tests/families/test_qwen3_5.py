"""Qwen3.5, loaded from disk with its real processor: three of five decoder layers have linear
attention, so that the oracle of every cut is the shorter sequence itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Fixed, Knockout, Method, Random
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.grid import Grid
from prunus.pruners.fastv import FastV
from prunus.pruners.pyramiddrop import PyramidDrop
from tests.support.families import encoded
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    held_bytes,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.qwen3_5 import LAYERS, QWEN3_5, QWEN3_5_MOE

# What these say of keys in every layer is said below of those layers that have them.
OWN = ("cache_layers_hold_what_the_cuts_say", "cache_can_be_repeated_and_cropped")
HELD = [name for name in INVARIANTS if name not in OWN]
WAYS: dict[str, Method] = {
    "uniform": METHODS["uniform"],
    "before": METHODS["before"],
    "late": METHODS["late"],
    "two cuts": PyramidDrop(layers=(1, 4)),
    "looks": FastV(keep=6, layer=2),
    "edits": Knockout(layers=(1, 4), mask="both", renormalise=True, forget=True),
    "merges": EvoPrune(keep=0.5),
}
FEW = ("late", "edits", "merges")
MANY = [pytest.param(way, marks=() if way in FEW else pytest.mark.full) for way in WAYS]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(QWEN3_5, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("method", MANY)
@pytest.mark.parametrize("name", HELD)
def test_invariants(name: str, method: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(QWEN3_5, loaded, "VI"), WAYS[method])


@pytest.mark.parametrize("method", ["before", "late", "two cuts"])
def test_layers_with_keys_hold_what_the_cuts_say(method: str, loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(QWEN3_5, loaded, "VI").prompts.rows(2)
    with torch.no_grad():
        plain = model(**inputs, use_cache=True).past_key_values
    with prunus.prune(model, WAYS[method]) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    length, (visual,) = inputs["input_ids"].shape[1], [79]
    assert run.report()["tokens"]["original"] == visual
    for number, kind in enumerate(LAYERS):
        left = visual
        for entry in run.trace:
            if (entry.layer or 0) <= number:
                left = sum(len(image) for image in entry.kept[0])
        if kind == "full_attention":
            assert cache.layers[number].keys.shape[2] == length - visual + left
            assert cache.get_seq_length(number) == length
            continue
        own, theirs = cache.layers[number], plain.layers[number]
        assert own.recurrent_states[0].shape == theirs.recurrent_states[0].shape
        same = torch.allclose(own.recurrent_states[0], theirs.recurrent_states[0], atol=1e-4)
        assert same == (left == visual and all((e.layer or 0) >= number for e in run.trace))


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(QWEN3_5_MOE, tmp_path_factory.mktemp("experts"))


@pytest.mark.parametrize("method", [pytest.param("before", marks=pytest.mark.full), "late"])
@pytest.mark.parametrize("name", HELD)
def test_invariants_of_the_mixture_of_experts(
    name: str, method: str, experts: tuple[Any, Any]
) -> None:
    hold(name, case_of(QWEN3_5_MOE, experts, "I"), WAYS[method])


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    """The processor puts the four patches of a cell behind each other."""
    model, processor = loaded
    inputs = marked_inputs(QWEN3_5, processor, (90, 43), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"].view(grid.size, 4, 3, -1)
    low, high = (f(pixels, dim=(0, 1, 3), keepdim=True) for f in (torch.amin, torch.amax))
    bright = (pixels > low + 0.3 * (high - low)).flatten(1).any(1)
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), bright.numpy(), square)


def test_a_video_is_one_grid_with_timestamps_between(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(QWEN3_5, processor, "what V is this?")
    ids = inputs["input_ids"][0]
    places = (ids == model.config.video_token_id).nonzero()[:, 0]
    assert len(places) == 24 and int((places.diff() > 1).sum()) == 1  # two time steps, text between
    with prunus.prune(model, Random(keep=9, layer=None)) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    assert run.trace[0].grid == [[Grid(2, 3, 4, (8, 8))]]
    assert cache.layers[1].keys.shape[2] == len(ids) - 24 + 9  # timestamps stay


@pytest.mark.parametrize("method", ["late", "looks", "merges"])
def test_costs(method: str, loaded: tuple[Any, Any]) -> None:
    """States of linear attention take the same bytes whatever was dropped."""
    model, _ = loaded
    inputs = case_of(QWEN3_5, loaded, "I").prompts.rows(1)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, WAYS[method])
    assert report["uncounted"] == {}
    if method == "late":
        assert report["tokens"]["per_layer"] == [55, 55, 55, 5, 5]


def test_states_are_in_float32_in_a_model_of_half_precision(loaded: tuple[Any, Any]) -> None:
    model = copy.deepcopy(loaded[0]).to(torch.bfloat16)
    inputs = case_of(QWEN3_5, loaded, "I").prompts.rows(1)
    with prunus.prune(model, WAYS["before"]) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    assert run.report()["kv_bytes"]["pruned"] == held_bytes(cache)


REFUSED: dict[str, tuple[Method, str]] = {
    "trimmed caches": (CLSE(keep=12, variant="released"), "layer [02].*(no weights|forget)"),
    "trimmed caches alone": (Fixed([0, 3], layer=3, trim_cache=True), "layer 0.*cannot forget"),
    "a look": (FastV(keep=5, layer=3), r"layer 2.*no weights.*\(1, 4\)"),
    "an edit": (Knockout(layers=(1, 2)), "layer 2.*who sees whom"),
    "a look at the next layer": (PyramidDrop(layers=(1, 3)), "layer 3.*no weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_linear_attention_cannot_give_is_refused_early(
    name: str, loaded: tuple[Any, Any]
) -> None:
    method, message = REFUSED[name]
    with pytest.raises(PrunusError, match=message):
        prunus.prune(loaded[0], method)
