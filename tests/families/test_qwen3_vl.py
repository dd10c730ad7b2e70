"""Qwen3-VL, loaded from disk with its real processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Random, Uniform
from prunus.errors import PrunusError
from prunus.families import Family, family_of
from prunus.families.qwen3_vl import Qwen3VL
from prunus.grid import Grid
from tests.conftest import Case
from tests.support.facts import counts
from tests.support.families import QWEN3_VL, QWEN3_VL_MOE, encoded
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.literal.evoprune import literal
from tests.support.oracles.merged_windows import frames_of, merged_frame
from tests.support.runs import gap


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(QWEN3_VL, tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["I", "VI"])
def case(request: pytest.FixtureRequest, loaded: tuple[Any, Any]) -> Case:
    return case_of(QWEN3_VL, loaded, request.param)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    """The processor puts the four patches of a cell behind each other."""
    model, processor = loaded
    inputs = marked_inputs(QWEN3_VL, processor, (90, 43), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"].view(grid.size, 4, 3, -1)
    low, high = (f(pixels, dim=(0, 1, 3), keepdim=True) for f in (torch.amin, torch.amax))
    bright = (pixels > low + 0.3 * (high - low)).flatten(1).any(1)
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), bright.numpy(), square)


@pytest.mark.parametrize("signs", ["I", "V", "VI"])
def test_costs(signs: str, loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(QWEN3_VL, loaded, signs).prompts.rows(2)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, CLSE(keep=5))
    assert report["uncounted"] == {}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(QWEN3_VL_MOE, tmp_path_factory.mktemp("experts"))


@pytest.mark.parametrize("method", ["before", "released"])
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_the_mixture_of_experts(
    name: str, method: str, experts: tuple[Any, Any]
) -> None:
    hold(name, case_of(QWEN3_VL_MOE, experts, "VI"), METHODS[method])


def test_costs_of_the_mixture_of_experts(experts: tuple[Any, Any]) -> None:
    model, _ = experts
    inputs = case_of(QWEN3_VL_MOE, experts, "I").prompts.rows(1)
    del inputs["attention_mask"]
    model.set_experts_implementation("eager")  # products that torch's counter knows
    report = assert_costs(model, inputs, CLSE(keep=5))
    assert report["uncounted"] == {}


def test_a_report_counts_tokens_where_costs_are_not_known(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Qwen3VL, "tower_shapes", vars(Family)["tower_shapes"])
    model, _ = loaded
    inputs = case_of(QWEN3_VL, loaded, "I").prompts.rows(1)
    with prunus.prune(model, Uniform(keep=5)) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    report = run.report()
    assert report["tokens"]["kept"] == 5 and report["flops"] is None
    assert list(report["uncounted"]) == ["flops"]
    assert "its adapter says nothing of the sizes" in report["uncounted"]["flops"]
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert report["kv_bytes"]["pruned"] == held
    assert "prefill FLOPs   not counted" in str(report) and "adapter says nothing" in str(report)


def test_a_video_is_one_grid_with_timestamps_between(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(QWEN3_VL, processor, "what V is this?")
    ids = inputs["input_ids"][0]
    places = (ids == model.config.video_token_id).nonzero()[:, 0]
    assert len(places) == 24 and int((places.diff() > 1).sum()) == 1  # two time steps, text between
    with prunus.prune(model, Random(keep=9, layer=None)) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    assert run.trace[0].grid == [[Grid(2, 3, 4, (8, 8))]]
    assert run.report()["tokens"]["original"] == 24
    assert cache.layers[0].keys.shape[2] == len(ids) - 24 + 9  # timestamps stay


def test_deepstack_matters_and_stays_where_it_belongs(loaded: tuple[Any, Any]) -> None:
    """Or the oracles would not tell whether it is gathered: without it logits are others."""
    model, processor = loaded
    inputs = encoded(QWEN3_VL, processor, "what I is this?")
    with torch.no_grad():
        whole = model(**inputs).logits

        def without(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, "deepstack_visual_embeds": None}

        handle = model.model.language_model.register_forward_pre_hook(without, with_kwargs=True)
        bare = model(**inputs).logits
        handle.remove()
        with prunus.prune(model, Uniform(keep=1.0)):
            same = model(**inputs, output_hidden_states=True)
        plain = model(**inputs, output_hidden_states=True)
    assert float((whole - bare).abs().max()) > 1e-2
    assert torch.equal(same.logits, whole)
    for ours, theirs in zip(same.hidden_states, plain.hidden_states, strict=True):
        assert torch.equal(ours, theirs)


def test_features_behind_the_last_layer_are_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(QWEN3_VL, processor, "what I is this?")
    last = len(model.model.language_model.layers)

    def more(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        features = kwargs["deepstack_visual_embeds"]
        return args, {**kwargs, "deepstack_visual_embeds": [features[0]] * last}

    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        handle = model.model.language_model.register_forward_pre_hook(
            more, with_kwargs=True, prepend=True
        )
        try:
            with pytest.raises(PrunusError, match=f"behind decoder layer {last - 1}"):
                model(**inputs)
        finally:
            handle.remove()


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(name: str, case: Case) -> None:
    hold(name, case, EvoPrune(keep=0.5))


@pytest.mark.parametrize(
    "method",
    [
        EvoPrune(keep=0.4),
        EvoPrune(keep=7, schedule="mean", start=0),
        EvoPrune(keep=7, schedule="mean", start=0, by_size=False),
    ],
)
def test_features_of_early_blocks_merge_along(method: EvoPrune, case: Case) -> None:
    """A merged token is given the mean of what its parts were, at every depth; merges before the
    block, at it and behind it."""
    inputs = case.prompts.rows(2, 1)
    model, given = case.model, []
    core = model.model
    with prunus.prune(model, method) as run, torch.no_grad():
        handle = core.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: given.append(kwargs["deepstack_visual_embeds"]),
            with_kwargs=True,
            prepend=True,
        )
        model(**inputs)
        handle.remove()
    (entry,) = run.trace
    found: dict[tuple[str, int], list[list[torch.Tensor]]] = {}
    firsts: dict[tuple[str, int], int] = {}
    for kind, number, grid, pixels in frames_of(inputs, 2):
        gone = list(method.merges(4, grid.size, counts(method, grid.size)[0]))
        early: list[dict[int, torch.Tensor]] = []
        with torch.no_grad():
            tokens, _ = merged_frame(
                core.visual, pixels, grid, literal(method, gone), method.by_size, early
            )
        assert len(early) == 2
        first = firsts.get((kind, number), 0)
        firsts[kind, number] = first + grid.size
        for depth, features in enumerate(early):
            assert sorted(features) == sorted(tokens)
            full = [features.get(n, torch.zeros(64)) for n in range(grid.size)]
            found.setdefault((kind, number), [[], []])[depth].append(torch.stack(full))
    counted: dict[str, int] = {}
    wanted: list[list[torch.Tensor]] = [[], []]
    for row in entry.kind:
        for kind in row:
            number = counted.get(kind, 0)
            counted[kind] = number + 1
            for depth in range(2):
                wanted[depth] += found[kind, number][depth]
    for depth, own in enumerate(wanted):
        assert gap(given[0][depth], torch.cat(own)) < 1e-4


def test_what_merges_in_the_tower_is_counted(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(QWEN3_VL, loaded, "VI").prompts.rows(2)
    report = assert_costs(model, inputs, EvoPrune(keep=0.3, schedule="mean", start=0))
    assert report["flops"]["encoder_ratio"] < 1


def test_gradients_reach_early_blocks_through_what_merged(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(QWEN3_VL, processor, "what I is this?")
    weight = model.model.visual.deepstack_merger_list[0].linear_fc2.weight
    with prunus.prune(model, EvoPrune(keep=0.5)):
        model(**inputs).logits.sum().backward()
    assert float(weight.grad.abs().max()) > 0
    model.zero_grad()
