"""Gemma 4, loaded from disk with its real processor: two of five decoder layers read the keys of
earlier ones, and each is given something of each token's own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import prunus
from prunus import EvoPrune, Fixed, Knockout, Method, Random
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.families.decoders import reading_layers
from prunus.families.gemma4 import Gemma4
from prunus.grid import Grid
from prunus.inference.answer import dense_report
from prunus.method import Cut
from prunus.pruners.fastv import FastV
from prunus.pruners.pooling import Pooling
from tests.support.families import encoded
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.gemma4 import GEMMA4, GEMMA4_LARGE


class Joining(Pooling):
    """Pooling inside the language model."""

    name = "joining"

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(1, whole=True)]


WAYS: dict[str, Method] = {
    "new tokens before": Pooling(keep=8),
    "before": METHODS["before"],
    "early": Fixed([0, 3, 7, 8, 15], layer=1, trim_cache=True),
    "looks": FastV(keep=6, layer=1),
    "edits": Knockout(layers=(0, 3), mask="both", renormalise=True),
}
FEW = ("before", "early")
MANY = [pytest.param(way, marks=() if way in FEW else pytest.mark.full) for way in WAYS]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(GEMMA4, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(GEMMA4_LARGE, tmp_path_factory.mktemp("large"))


@pytest.mark.parametrize("method", MANY)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(GEMMA4, loaded, "I"), WAYS[method])


@pytest.mark.parametrize("method", [pytest.param("released", marks=pytest.mark.full), "late"])
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_large_models(name: str, method: str, large: tuple[Any, Any]) -> None:
    hold(name, case_of(GEMMA4_LARGE, large, "I"), METHODS[method])


def test_keys_are_those_of_the_layers_that_have_some(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    assert family_of(model).readers == {3: 1, 4: 2}
    inputs = case_of(GEMMA4, loaded, "I").prompts.rows(2)
    with prunus.prune(model, WAYS["early"]) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    assert all(layer.keys is None for layer in cache.layers[3:])
    report = run.report()
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers[:3])
    assert report["kv_bytes"]["pruned"] == held and report["uncounted"] == {}


@pytest.mark.parametrize("method", ["early", "looks"])
def test_costs(method: str, loaded: tuple[Any, Any]) -> None:
    """Inputs by layer are made of the whole prompt; layers that read keys make none, and have a
    wider MLP; padding of a picture goes through the tower as well."""
    model, _ = loaded
    inputs = case_of(GEMMA4, loaded, "I").prompts.rows(1)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, WAYS[method])
    grid = family_of(model).grids_of(inputs)["image"][0]
    (seen,) = family_of(model).tower_grids(grid)
    assert seen.size == inputs["pixel_values"].shape[1] > 4 * grid.size
    assert report["uncounted"] == {}


def test_a_tower_with_other_heads_is_not_counted(loaded: tuple[Any, Any]) -> None:
    config = copy.deepcopy(loaded[0].config)
    config.vision_config.head_dim = 16
    with pytest.raises(PrunusError, match="heads of its vision tower have 64 channels.*not 32"):
        family_of(loaded[0]).tower_shapes(config)


def test_inputs_by_layer_matter(loaded: tuple[Any, Any]) -> None:
    """Or the oracles would not tell whether they go with their tokens."""
    model, _ = loaded
    inputs = case_of(GEMMA4, loaded, "I").prompts.rows(1)
    with torch.no_grad():
        whole = model(**inputs).logits
        handles = [
            layer.register_forward_pre_hook(lambda module, args: (args[0], args[1].roll(1, 1)))
            for layer in model.model.language_model.layers
        ]
        moved = model(**inputs).logits
    for handle in handles:
        handle.remove()
    assert float((whole - moved).abs().max()) > 1e-2


REFUSED: dict[str, tuple[Method, str]] = {
    "behind the keys": (
        Fixed([0, 3], layer=2),
        "at.* 2, but layer 3 reads.* 1 .*layer 1 or",
    ),
    "in the last layers": (Fixed([0, 3], layer=4), "layer 4, but layer 4 reads.*of layer 2"),
    "caches": (Knockout(layers=(1,), forget=True), "cache of layer 1, which shares it"),
    "new tokens": (Joining(keep=4), "joining makes new tokens at.*1.*per_layer_input"),
    "a merge in the tower": (EvoPrune(keep=0.5), "averages squares of patches by their places"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused_early(name: str, loaded: tuple[Any, Any]) -> None:
    method, message = REFUSED[name]
    with pytest.raises(PrunusError, match=message):
        prunus.prune(loaded[0], method)


def test_keys_that_an_assistant_would_read_are_refused(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(GEMMA4, loaded, "I").prompts.rows(1)
    with prunus.prune(model, WAYS["before"]), pytest.raises(PrunusError, match="assistant"):
        model(**inputs, return_shared_kv_states=True)


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = marked_inputs(GEMMA4, processor, (90, 43), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    assert isinstance(grid, Grid)
    places = inputs["image_position_ids"][0]
    white = (inputs["pixel_values"][0] > 0.3).any(1)
    bright = torch.zeros(grid.rows, grid.cols, dtype=torch.bool)
    for (x, y), mark in zip(places.tolist(), white.tolist(), strict=True):
        if x >= 0 and mark:
            bright[y // 2, x // 2] = True
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), bright.flatten().numpy(), square)


@pytest.mark.parametrize("text", ["what V is this?", "what V or I is this, V?"])
def test_a_video_is_one_grid_with_timestamps_between(text: str, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(GEMMA4, processor, text)
    ids = inputs["input_ids"][0]
    videos = ids == model.config.video_token_id
    frames = inputs["num_frames_per_video"].tolist()
    with prunus.prune(model, Random(keep=9, layer=None)) as run, torch.no_grad():
        pruned = model(**inputs, use_cache=True)
    grids = [grid for grid in run.trace[0].grid[0] if grid.frames > 1]
    assert [grid.frames for grid in grids] == frames
    assert sum(grid.size for grid in grids) == int(videos.sum())
    shown = run.report()["tokens"]
    assert (
        pruned.past_key_values.layers[2].keys.shape[2]
        == len(ids) - shown["original"] + shown["kept"]
    )
    held = pruned.past_key_values.layers[2].keys.shape[2]
    assert held == len(ids) - shown["original"] + shown["kept"]
    # What is hidden in the unmodified model is what was dropped.
    spots = (videos | (ids == model.config.image_token_id)).nonzero()[:, 0]
    gone = torch.ones(len(spots), dtype=torch.bool)
    start = 0
    for grid, kept in zip(run.trace[0].grid[0], run.trace[0].kept[0], strict=True):
        gone[start + kept] = False
        start += grid.size
    mask = torch.ones(1, len(ids), dtype=torch.long)
    mask[0, spots[gone]] = 0
    where = torch.arange(len(ids))[None]
    with torch.no_grad():
        hidden = model(**{**inputs, "attention_mask": mask, "position_ids": where}).logits
    assert float((hidden[0, -1] - pruned.logits[0, -1]).abs().max()) < 1e-4


def test_reports_say_what_the_unmodified_model_leaves_out(
    loaded: tuple[Any, Any], large: tuple[Any, Any]
) -> None:
    """``generate`` runs layers that read keys of others on the last token alone: dense numbers of
    all tokens would make savings look larger than they are."""
    model, _ = loaded
    first = min(reading_layers(model.config.get_text_config(), 99))
    seen: list[int] = []
    layers = model.model.language_model.layers
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
        for layer in layers
    ]
    ids = torch.arange(5, 17)[None]
    model.generate(input_ids=ids, max_new_tokens=1, do_sample=False)
    for hook in hooks:
        hook.remove()
    assert seen == [12] * first + [1] * (len(layers) - first)
    note = Gemma4.cost_note(model.config)
    assert f"layers {first}-{len(layers) - 1} read keys" in note and "last token" in note
    assert note in dense_report(model, {"input_ids": ids})["notes"]
    assert not Gemma4.cost_note(large[0].config)
