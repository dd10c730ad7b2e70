"""Decode steps in which masks stand are hooked in few layers, too, and give the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama import modeling_llama

import prunus
from prunus import CLSE, Random, Uniform
from prunus.engine.decode import Resume
from prunus.pruners.fastv import FastV
from tests.engine.test_passing_threads import visitor
from tests.engine.test_standby import calls_of, hooks, step
from tests.support import flash
from tests.support.decoder_list import DECODERS, LINEAR
from tests.support.llava import llava_clip
from tests.support.models import Case, prompts_for
from tests.support.proof.bench import model_of
from tests.support.runs import decoded, gap

METHODS: dict[str, Any] = {
    "before": Uniform(keep=5, layer=None),
    "inside": Uniform(keep=5, layer=2),
    "row": CLSE(keep=5, variant="released"),
    "late": FastV(keep=5, layer=3),
    "stages": [Random(keep=9, layer=1), Random(keep=5, layer=3)],
}
#: Layers that keep their hooks behind a step in which they were seen to share a mask: the first,
#: and those that hold something else than most.
ALONE: dict[str, list[int]] = {name: [0] for name in METHODS}
PADDED = {"before": [0], "inside": [0, 1], "row": [0], "late": [0, 3, 4], "stages": [0, 3, 4]}
BACKENDS = ("sdpa", "eager", "flash")


def made(backend: str, monkeypatch: pytest.MonkeyPatch, depth: int = 5) -> Any:
    model = llava_clip(depth)
    if backend == "flash":
        flash.stand_in(model, monkeypatch)
    else:
        model.set_attn_implementation(backend)
    return model


def standing(model: Any) -> list[int]:
    return [number for number, count in enumerate(hooks(model)) if count]


def steps(model: Any, inputs: dict[str, Tensor], count: int, other: Any = None) -> list[Tensor]:
    """Logits of ``count`` steps behind a prompt; ``other`` runs between them."""
    cache, mask = model(**inputs).past_key_values, inputs["attention_mask"]
    found = []
    for token in range(count):
        found.append(step(model, cache, mask, 41 + token))
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        if other is not None:
            other()
    return found


def hooked(model: Any, method: Any, inputs: dict[str, Tensor], count: int) -> list[Tensor]:
    """The same steps where every layer is asked."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Resume, "settle", lambda *_: None)
        with prunus.prune(model, method):
            found = steps(model, inputs, count)
            assert len(standing(model)) == 5
            return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("rows", [(1,), (1, 2), (1, 1, 2)])
def test_the_same_with_hooks_and_without(
    name: str, backend: str, rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = made(backend, monkeypatch), prompts_for("llava-clip").rows(*rows)
    expected = hooked(model, METHODS[name], inputs, 4)
    with prunus.prune(model, METHODS[name]), torch.no_grad():
        for one, other in zip(steps(model, inputs, 4), expected, strict=True):
            assert gap(one, other) < 1e-6
        padded = not inputs["attention_mask"].all()
        assert standing(model) == (PADDED if padded else ALONE)[name]


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", METHODS)
def test_padded_batches_equal_the_masked_full_length_run(
    llava: Case, name: str, backend: str
) -> None:
    llava.model.set_attn_implementation(backend)
    _, difference = decoded(llava, METHODS[name], llava.prompts.rows(2, 1), 6)
    assert difference < 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_flash_attention_equals_sdpa(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = llava_clip(), prompts_for("llava-clip").rows(1, 2)
    with prunus.prune(model, METHODS[name]), torch.no_grad():
        expected = steps(model, inputs, 4)
    flash.stand_in(model, monkeypatch)
    with prunus.prune(model, METHODS[name]), torch.no_grad():
        for one, other in zip(steps(model, inputs, 4), expected, strict=True):
            assert gap(one, other) < 1e-5


@pytest.mark.parametrize(
    ("backend", "rows"), [("eager", (1,)), ("flash", (1,)), *((one, (1, 2)) for one in BACKENDS)]
)
def test_a_step_calls_nothing_more_in_a_layer(
    backend: str, rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it calls beyond the plain step does not grow with the number of layers."""
    inputs, more = prompts_for("llava-clip").rows(*rows), []
    for depth in (4, 9):
        model = made(backend, monkeypatch, depth)

        def count(model: Any = model) -> int:
            mask = inputs["attention_mask"]
            cache = model(**inputs).past_key_values
            for _ in range(3):
                step(model, cache, mask)
                mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            return calls_of(lambda: step(model, cache, mask)).total()

        with torch.no_grad():
            plain = count()
            with prunus.prune(model, Uniform(keep=5, layer=1)):
                more.append(count() - plain)
    assert more[0] == more[1] < 250


@pytest.mark.parametrize("name", ["before", "inside"])
def test_a_mask_that_hides_something_in_one_step(name: str) -> None:
    """Eager attention, whose masks stand always."""
    model, inputs = llava_clip(), prompts_for("llava-clip").rows(1)
    model.set_attn_implementation("eager")
    mask = inputs["attention_mask"]
    longer = torch.cat([mask, mask.new_ones(1, 2)], 1)
    hiding = longer.clone()
    hiding[0, -2] = 0

    def third(mask: Tensor) -> Tensor:
        cache = model(**inputs).past_key_values
        step(model, cache, longer[:, :-2])
        step(model, cache, longer[:, :-1])
        return step(model, cache, mask)

    with prunus.prune(model, METHODS[name]), torch.no_grad():
        seen, found = third(longer), third(hiding)
        assert standing(model) == ([0] if name == "before" else [0, 1])
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Resume, "settle", lambda *_: None)
        with prunus.prune(model, METHODS[name]):
            assert gap(third(hiding), found) < 1e-6 < 1e-3 < gap(found, seen)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_a_mask_of_the_caller_stays_as_it_is(backend: str) -> None:
    model, inputs = llava_clip(), prompts_for("llava-clip").rows(1, 2)
    model.set_attn_implementation(backend)
    size = inputs["attention_mask"].shape[1]
    with prunus.prune(model, METHODS["inside"]), torch.no_grad():
        steps(model, inputs, 3)
        cache = model(**inputs).past_key_values
        see = torch.cat([inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1).bool()
        mask = see[:, None, None]
        if backend == "eager":
            mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
        before = mask.clone()
        call = {"input_ids": torch.full((2, 1), 41), "attention_mask": mask}
        found = model(**call, past_key_values=cache).logits
        assert torch.equal(mask, before) and mask.shape[-1] == size + 1
        assert gap(found, steps(model, inputs, 1)[0]) < 1e-5


def test_a_mask_that_the_model_keeps_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tensor for every step of the same length: not made for this one."""
    model, inputs = llava_clip(), prompts_for("llava-clip").rows(1, 2)
    held, own = dict[int, Tensor](), modeling_llama.create_causal_mask

    def kept(*args: Any, **kwargs: Any) -> Any:
        made = own(*args, **kwargs)
        return made if made is None else held.setdefault(made.shape[-1], made)

    monkeypatch.setattr(modeling_llama, "create_causal_mask", kept)
    with prunus.prune(model, METHODS["inside"]), torch.no_grad():
        first = [steps(model, inputs, 1)[0] for _ in range(3)]
    assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])
    for length, mask in held.items():
        assert mask.shape[-1] == length


def test_layers_that_are_given_several_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal, but not one tensor: what becomes of one says nothing to the others."""
    model, inputs = llava_clip(), prompts_for("llava-clip").rows(1, 2)
    expected = hooked(model, METHODS["inside"], inputs, 4)
    layer = modeling_llama.LlamaDecoderLayer
    own = layer.__call__

    def copied(self: Any, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        if attention_mask is not None:
            attention_mask = attention_mask.clone()
        return own(self, *args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(layer, "__call__", copied)
    with prunus.prune(model, METHODS["inside"]), torch.no_grad():
        for one, other in zip(steps(model, inputs, 4), expected, strict=True):
            assert gap(one, other) < 1e-6
        assert standing(model) == [0, 1, 2, 3, 4]


def test_caches_that_need_other_hooks_in_turn() -> None:
    """Of several layouts, and prompts between the steps."""
    model, prompts = llava_clip(), prompts_for("llava-clip")
    alone, padded = prompts.rows(1), prompts.rows(1, 2)
    with torch.no_grad():
        for name in METHODS:
            expected = hooked(model, METHODS[name], padded, 4)
            with prunus.prune(model, METHODS[name]):
                for other in (lambda: steps(model, alone, 2), lambda: model(**alone)):
                    found = steps(model, padded, 4, other)
                    for one, wanted in zip(found, expected, strict=True):
                        assert gap(one, wanted) < 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_another_thread_leaves_the_hooks_that_a_step_needs(name: str) -> None:
    """A step of one prompt alone, which needs none, while a padded one is between its layers."""
    model, prompts = llava_clip(), prompts_for("llava-clip")
    alone, padded = prompts.rows(1), prompts.rows(1, 2)
    mask = padded["attention_mask"]
    with prunus.prune(model, METHODS[name]), torch.no_grad():
        expected = steps(model, padded, 2)[0]
        for number in range(5):
            place = f"model.language_model.layers.{number}.mlp"
            cache = model(**padded).past_key_values
            with visitor(model, lambda c=cache: step(model, c, mask), [place]) as (stops, found):
                stops.reached()
                steps(model, alone, 2)
                assert standing(model) == PADDED[name]
                stops.go.release()
            assert torch.equal(found[0], expected)
        steps(model, alone, 2)
        assert standing(model) == [0]


@pytest.mark.parametrize("rows", [(1,), (2, 1)])
@pytest.mark.parametrize("name", ["qwen2-window", "gemma3_text", "mistral", "qwen3_next"])
def test_each_kind_of_layer_has_a_first_one(name: str, rows: tuple[int, ...]) -> None:
    """Windows beside full layers, windows alone, linear attention: the same, with fewer hooks."""
    decoder = next(one for one in (*DECODERS, *LINEAR) if one.name == name)
    model, inputs = model_of(decoder), prompts_for("llava-clip").rows(*rows)
    model.set_attn_implementation("sdpa")
    method, text = Uniform(keep=5, layer=1), model.config.get_text_config()
    kinds = list(getattr(text, "layer_types", None) or ["one"] * len(hooks(model)))
    try:
        with prunus.prune(model, method), torch.no_grad():
            found = steps(model, inputs, 12)
            left = standing(model)
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(Resume, "settle", lambda *_: None)
            with prunus.prune(model, method):
                expected = steps(model, inputs, 12)
                assert len(standing(model)) == len(kinds)
    finally:
        model.set_attn_implementation("eager")
    for one, other in zip(found, expected, strict=True):
        assert gap(one, other) < 1e-5
    firsts = {kinds.index(kind) for kind in kinds}
    assert firsts <= set(left) and len(left) <= len(firsts) + 1 < len(kinds)


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_in_inference_mode(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = made(backend, monkeypatch), prompts_for("llava-clip").rows(1, 2)
    expected = hooked(model, METHODS["inside"], inputs, 4)
    with prunus.prune(model, METHODS["inside"]), torch.inference_mode():
        for one, other in zip(steps(model, inputs, 4), expected, strict=True):
            assert gap(one, other) < 1e-6
        assert standing(model) == PADDED["inside"]
