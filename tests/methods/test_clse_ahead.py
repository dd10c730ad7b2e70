"""CLSE by look-ahead: the first decoder layer runs on an image alone, before the language model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, Knockout
from prunus.engine.ahead import bare
from prunus.errors import PrunusError
from prunus.method import Cut
from prunus.method.signals import Ahead, States
from prunus.pruners.fastv import FastV
from prunus.pruners.tome import ToMe
from tests.support.facts import asks, needs_grid
from tests.support.literal.change import literal
from tests.support.literal.clse import best, first_stage, literal_intensity
from tests.support.literal.first_layer import first_layer
from tests.support.models import Case, case_of
from tests.support.runs import plain


def entering(case: Case, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """States ``[B, L, D]`` at the first decoder layer of the unmodified model, and position ids
    ``[A, B, L]`` that its language model was given, or counts."""
    seen: list[Any] = []
    model = case.model.get_decoder()
    handles = [
        model.register_forward_pre_hook(
            lambda module, args, given: seen.append(given.get("position_ids")), with_kwargs=True
        ),
        model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0])),
    ]
    plain(case.model, inputs)
    for handle in handles:
        handle.remove()
    ids, states = seen
    if ids is None:
        ids = torch.arange(states.shape[1]).expand(states.shape[:2])
    return states, ids[None] if ids.ndim == 2 else ids[-3:]


def kept_and_scores(case: Case, method: Any, inputs: dict[str, Tensor]) -> Any:
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    return run


@pytest.mark.parametrize("score", ["clse", "residual", "mean"])
def test_the_first_layer_read_literally(case: Case, score: Any) -> None:
    inputs = case.prompts.rows(1, 1)  # the first is padded
    run = kept_and_scores(case, CLSE(keep=5, ahead=True, score_type=score), inputs)
    states, ids = entering(case, inputs)
    grids = case.prompts.grids(inputs)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            before = states[row, places]
            at = ids[:, row, places].T
            after = first_layer(case.model.get_decoder(), before, (at - at[0]).tolist())
            if score == "clse":
                wanted = literal_intensity(after, before, grids[row][image], 0.1)
            else:
                which = ["residual", "mean"].index(score)
                pairs = zip(after.tolist(), before.tolist(), strict=True)
                wanted = [literal(now, then)[which] for now, then in pairs]
            kept, scores = first_stage(run, row, image)
            assert scores == pytest.approx(wanted, rel=1e-4, abs=1e-5)
            assert kept == best(scores, 5)


def test_behind_nothing_it_is_the_paper_variant(case: Case) -> None:
    inputs = case.prompts.rows(1)
    start = case.prompts.spots(inputs["input_ids"])[0][0][0]
    start -= getattr(case.prompts, "extra", 0)
    width = inputs["input_ids"].shape[1]
    inputs = {
        name: one[:, start:] if one.shape[:2] == (1, width) else one for name, one in inputs.items()
    }
    found = [
        first_stage(kept_and_scores(case, CLSE(keep=6, ahead=own), inputs), 0, 0)
        for own in (True, False)
    ]
    if case.name == "llava-clip-full":  # a CLS token stands in front, which the layer sees there
        assert found[0][1] != pytest.approx(found[1][1], rel=1e-4)
        return
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4, abs=1e-6)


def test_neither_text_nor_neighbours_matter(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    run = kept_and_scores(case, CLSE(keep=5, ahead=True), inputs)
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    visual = torch.zeros_like(other["input_ids"], dtype=torch.bool)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        visual[row, [place for places in images for place in places]] = True
    words = (other["input_ids"] > 2) & (other["input_ids"] < 90)
    other["input_ids"][words & ~visual] += 3
    changed = kept_and_scores(case, CLSE(keep=5, ahead=True), other)
    for row in range(2):
        alone = case.prompts.one(inputs, row, trim=True)
        single = kept_and_scores(case, CLSE(keep=5, ahead=True), alone)
        for image in range(len(run.trace[0].kept[row])):
            kept, scores = first_stage(run, row, image)
            for again in (first_stage(single, 0, image), first_stage(changed, row, image)):
                assert again[0] == kept and again[1] == pytest.approx(scores, rel=1e-4, abs=1e-6)
    assert not asks(CLSE(ahead=True)) and needs_grid(CLSE(ahead=True))


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_gaps_between_positions_are_no_several_prompts(backend: str) -> None:
    """Visual tokens that another method merged away leave gaps."""
    case = case_of("llava-clip")
    case.model.set_attn_implementation(backend)
    inputs = case.prompts.rows(1)
    run = kept_and_scores(case, [ToMe(keep=8), CLSE(keep=4, ahead=True, score_type="mean")], inputs)
    seen: list[Tensor] = []
    layer = case.model.get_decoder().layers[0]
    with prunus.prune(case.model, ToMe(keep=8)) as merged:
        handle = layer.input_layernorm.register_forward_pre_hook(
            lambda module, args: seen.append(args[0])
        )
        plain(case.model, inputs)
        handle.remove()
    [places] = case.prompts.spots(inputs["input_ids"])[0]
    kept = merged.trace[0].kept[0][0].tolist()
    assert kept[-1] - kept[0] + 1 > len(kept)
    own = seen[0][0, places[0] : places[0] + len(kept)]
    after = first_layer(case.model.get_decoder(), own, [[one - kept[0]] for one in kept])
    wanted = [literal(*pair)[1] for pair in zip(after.tolist(), own.tolist(), strict=True)]
    chosen, scores = first_stage(_Last(run), 0, 0)
    assert [scores[one] for one in kept] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert chosen == [kept[one] for one in best(wanted, 4)]


class _Last:
    """A run whose last selection is the first."""

    def __init__(self, run: Any) -> None:
        self.trace = run.trace[-1:]


def test_nothing_notices_that_the_layer_runs(case: Case) -> None:
    """Looks and edits of the first layer are those of the prompt, hooks of a user run once, and
    dropout draws nothing."""
    inputs = case.prompts.rows(2)
    layer, calls = case.model.get_decoder().layers[0], []
    for module in (layer, layer.self_attn, layer.mlp):
        module.register_forward_hook(lambda *given: calls.append(given[0]))
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    kept_and_scores(case, CLSE(keep=5, ahead=True), inputs)
    assert len(calls) == 3
    assert all(torch.equal(value, before[name]) for name, value in case.model.state_dict().items())
    looks = [CLSE(keep=9, ahead=True), FastV(keep=5, layer=1)]
    edited = [CLSE(keep=9, ahead=True), Knockout(layers=(0, 1), mask="both")]
    alone = kept_and_scores(case, CLSE(keep=9, ahead=True), inputs).trace[0].kept[0]
    for methods in (looks, edited):
        run = kept_and_scores(case, methods, inputs)
        first = next(one for one in run.trace if one.place == "features")
        assert all(torch.equal(a, b) for a, b in zip(first.kept[0], alone, strict=True))
    for module in case.model.get_decoder().modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    case.model.train()
    with torch.no_grad():
        again = [kept_and_scores(case, CLSE(keep=9, ahead=True), inputs) for _ in range(2)]
    assert layer.training
    for run in again:
        assert all(torch.equal(a, b) for a, b in zip(run.trace[0].kept[0], alone, strict=True))


def test_a_bare_module_has_the_weights_and_nothing_else() -> None:
    layer = case_of("llava-clip").model.get_decoder().layers[0]
    layer.train()
    layer.register_forward_pre_hook(lambda module, args: 1 / 0)
    layer.mlp.register_forward_hook(lambda *given: 1 / 0)
    twin: Any = bare(layer)
    assert not any(module._forward_hooks for module in twin.modules())
    assert not any(module.training for module in twin.modules())
    assert all(module.training for module in layer.modules())
    pairs = zip(layer.parameters(), twin.parameters(), strict=True)
    assert all(one is other for one, other in pairs)
    twin.mlp(torch.zeros(1, 1, 64))
    assert layer.mlp._forward_hooks and layer._forward_pre_hooks


def test_its_cost_is_one_layer_over_the_images(case: Case) -> None:
    inputs = case.prompts.rows(1)
    method = CLSE(keep=5, ahead=True, score_type="residual")
    found = kept_and_scores(case, method, inputs).report()["flops"]["pruned"]["method"]
    tokens = len(case.prompts.spots(inputs["input_ids"])[0][0])
    layer = case.model.get_decoder().layers[0]
    weights = sum(one.numel() for one in layer.parameters() if one.ndim == 2)
    width = case.model.get_decoder().config.hidden_size
    assert found == 2 * (tokens * weights + 2 * tokens**2 * width)
    assert not kept_and_scores(case, method.neutral(), inputs).report()["pruned"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"variant": "hybrid"},
        {"variant": "released"},
        {"score_type": "attn"},
        {"score_type": "clse_attn"},
        {"reference": 1},
        {"layers": 2},
        {"trim_cache": True},
    ],
)
def test_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(PrunusError, match="ahead=True"):
        CLSE(keep=5, ahead=True, **wrong)


def test_inside_the_language_model_there_is_no_ahead(case: Case) -> None:
    class Late(CLSE):
        name = "late-ahead"

        def cuts(self, depth: int) -> Any:
            return [Cut(2, (Ahead(), States(0)))]

    with pytest.raises(PrunusError, match=r"before the language model: name States\(1\)"):
        prunus.prune(case.model, Late(keep=5))


def test_offloaded_weights_are_refused() -> None:
    case = case_of("llava-clip")
    case.model.get_decoder().layers[0].mlp.to("meta")
    with (
        prunus.prune(case.model, CLSE(keep=5, ahead=True)),
        pytest.raises(PrunusError, match="offloaded"),
    ):
        plain(case.model, case.prompts.rows(1))
