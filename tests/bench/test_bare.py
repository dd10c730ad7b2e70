"""The plain loop computes what the pruned model computes, or there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus.bench import bare as module
from prunus.bench.bare import Bare, NoBare
from prunus.bench.steps import Steps
from prunus.families import family_of
from prunus.method.registry import make_method
from tests.support.models import case_of


def made(kind: str, name: str | None, **params: Any) -> tuple[Bare, Any, Any, list[Any]]:
    case = case_of(kind)
    methods = [] if name is None else [make_method(name, params)]
    inputs = case.prompts.rows(1)
    inputs = {key: value.repeat(2, *[1] * (value.dim() - 1)) for key, value in inputs.items()}
    with torch.no_grad():
        return Bare(family_of(case.model), inputs, methods), case.model, inputs, methods


@pytest.mark.parametrize("kind", ["llava-clip", "llava-siglip", "qwen2.5-vl"])
@pytest.mark.parametrize(
    ("name", "params"),
    [
        (None, {}),
        ("clse", {"keep": 5}),
        ("fastv", {"keep": 5}),
        ("divprune", {"keep": 5}),
        ("random", {"keep": 5, "layer": 2}),  # other tokens in each row
    ],
)
def test_logits_and_cache_are_those_of_the_pruned_model(
    kind: str, name: str | None, params: dict[str, Any]
) -> None:
    loop, model, inputs, methods = made(kind, name, **params)
    with torch.no_grad():
        states, cache = loop.prefill()
        if methods:
            with prunus.prune(model, methods):
                out = model(**inputs, logits_to_keep=1, use_cache=True)
        else:
            out = model(**inputs, logits_to_keep=1, use_cache=True)
        logits = model.get_output_embeddings()(states)
    assert float((logits - out.logits).abs().max()) < 1e-4
    for own, theirs in zip(cache.layers, out.past_key_values.layers, strict=True):
        assert torch.allclose(own.keys, theirs.keys, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "params", "reason"),
    [
        ("evoprune", {"keep": 0.5}, "tower"),
        ("visipruner", {"stages": ("shallow",), "shallow_layers": 1}, "edited"),
        ("pooling", {"keep": 4}, "merged"),
    ],
)
def test_where_there_is_none_it_says_why(name: str, params: Any, reason: str) -> None:
    with pytest.raises(NoBare, match=reason):
        made("llava-clip", name, **params)


def test_a_loop_that_computes_something_else_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module._stays

    def wrong(*args: Any) -> Any:
        return {layer: index[:, 1:] for layer, index in right(*args).items()}

    monkeypatch.setattr(module, "_stays", wrong)
    with pytest.raises(NoBare, match="something else"):
        made("llava-clip", "divprune", keep=5)


@pytest.mark.parametrize("kind", ["llava-clip", "qwen2.5-vl"])
def test_steps_are_taken_back(kind: str) -> None:
    loop, model, inputs, methods = made(kind, "clse", keep=5)
    with torch.no_grad():
        steps = Steps(family_of(model), inputs, methods, "nominal", loop)  # checks that they agree
        before = [layer.keys.shape[-2] for layer in steps._plain.layers]
        for _ in range(2):
            assert steps.ours() > 0 and steps.plain() > 0
    for cache in (steps._plain, steps._cache):
        assert [layer.keys.shape[-2] for layer in cache.layers] == before
    assert len(set(before)) > 1


def test_steps_that_differ_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, model, inputs, methods = made("llava-clip", "clse", keep=5)
    with torch.no_grad():
        states, cache = loop.prefill()
    for layer in cache.layers:
        layer.values.neg_()
    monkeypatch.setattr(loop, "prefill", lambda: (states, cache))
    with torch.no_grad(), pytest.raises(NoBare, match="plain cache"):
        Steps(family_of(model), inputs, methods, "nominal", loop)
