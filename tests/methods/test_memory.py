"""Nothing of a prompt is held longer than a method can ask for it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, Cut, Method, Random, View, VisiPruner
from prunus.method.signals import States
from tests.support.llava import DEPTH
from tests.support.models import Case, case_of
from tests.support.settings import settings


@pytest.fixture(params=["llava-clip", "qwen2.5-vl"])
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


@pytest.fixture(autouse=True)
def _quick_collection() -> Iterator[None]:
    """What is there before the test is left alone by the collector, which is slow otherwise."""
    gc.freeze()
    yield
    gc.unfreeze()


class Watch:
    """Weak references to what enters each decoder layer, and which of them live in later layers,
    behind the engine's own hooks."""

    def __init__(self, model: Any) -> None:
        self.entered: dict[int, weakref.ref[Tensor]] = {}
        self.alive: list[set[int]] = []
        self._handles = [
            layer.register_forward_pre_hook(self._hook(number), with_kwargs=True)
            for number, layer in enumerate(model.model.language_model.layers)
        ]

    def _hook(self, number: int) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            self.alive.append(self.held())
            self.entered[number] = weakref.ref(args[0] if args else kwargs["hidden_states"])

        return hook

    def held(self) -> set[int]:
        gc.collect()
        return {number for number, ref in self.entered.items() if ref() is not None}

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def watched(case: Case, method: Method, inputs: dict[str, Tensor]) -> list[set[int]]:
    """For each layer the earlier ones whose input is still there. Layer 0 is left out: the language
    model itself holds its input while it runs."""
    with prunus.prune(case.model, method), torch.no_grad():
        watch = Watch(case.model)
        case.model(**inputs, use_cache=True)
        watch.remove()
        assert watch.held() == set()
    assert len(watch.alive) == DEPTH
    return [alive - {0} for alive in watch.alive]


@pytest.mark.parametrize(
    ("method", "noted", "last"),
    [
        (CLSE(keep=5, layers=(3,), reference=1), {1}, 3),
        (CLSE(keep=5, layers=(3,), variant="hybrid", reference=1), {1, 2}, 3),
        (CLSE(keep=5, layers=(4,), reference=2, score_type="residual"), {2}, 4),
        (CLSE(keep=5, layers=(2,), score_type="attn"), {1}, 2),
    ],
    ids=["snapshot", "snapshot-and-attention", "residual", "attention"],
)
def test_states_are_not_held_behind_their_last_use(
    case: Case, method: Method, noted: set[int], last: int
) -> None:
    """The inputs of the layers in ``noted`` are looked at for the last time where layer ``last``
    begins. That of the layer that has just run may be on its way out."""
    for layer, alive in enumerate(watched(case, method, case.prompts.rows(2, 1))):
        kept = noted if layer < last else set()
        assert alive <= kept | {layer - 1}, f"layer {layer} still finds the inputs of {alive}"


def test_states_of_a_method_that_looks_at_every_layer(case: Case) -> None:
    method = VisiPruner(stages=("middle",), layer_threshold=-1, shallow_layers=0)
    with pytest.warns(UserWarning, match="found nothing to do"):
        seen = watched(case, method, case.prompts.rows(1, 1))
    for layer, alive in enumerate(seen):
        assert alive <= {layer - 1}


class Twice(Random):
    """Two stages, both of which look at what entered layer 1."""

    def cuts(self, depth: int) -> list[Cut]:
        return [Cut(2, (States(1),)), Cut(4, (States(1),))]

    def counts(self, keep: float | None, original: int, depth: int) -> Any:
        return [8, 4]

    def score(self, stage: int, view: View) -> Tensor:
        return view[States(1)].norm(dim=-1)


def test_states_are_held_until_the_last_of_several_stages(case: Case) -> None:
    inputs = case.prompts.rows(1)
    with prunus.prune(case.model, Twice()) as run, torch.no_grad():
        case.model(**inputs)
    assert [len(entry.kept[0][0]) for entry in run.trace] == [8, 4]
    for layer, alive in enumerate(watched(case, Twice(), inputs)):
        assert alive <= ({1} if layer < 4 else set()) | {layer - 1}


def test_the_watch_sees_what_is_held(case: Case) -> None:
    """Somebody else's hook holds the input of layer 1: the test above can fail."""
    held: list[Tensor] = []
    layer = case.model.model.language_model.layers[1]
    handle = layer.register_forward_pre_hook(
        lambda module, args, kwargs: held.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    with pytest.raises(AssertionError):
        watched(case, CLSE(keep=5, layers=(4,)), case.prompts.rows(1))
    handle.remove()
    assert len(held) == 1


@pytest.mark.parametrize("name", sorted(settings()))
def test_nothing_is_left_after_the_prompt(llava: Case, name: str) -> None:
    """Neither states nor cache nor features, though trace and report can be read."""
    held: dict[str, weakref.ref[Any]] = {}
    tower = llava.model.model.multi_modal_projector

    def note(module: Any, args: tuple[Tensor], output: Tensor) -> None:
        held["features"] = weakref.ref(args[0])

    def embedded(module: Any, args: Any, kwargs: dict[str, Tensor]) -> None:
        held["embeddings"] = weakref.ref(kwargs["inputs_embeds"])

    inputs = llava.prompts.rows(2, 1)
    lm = llava.model.model.language_model
    with prunus.prune(llava.model, settings()[name]) as run, torch.no_grad():
        handles = [
            tower.register_forward_hook(note),
            lm.register_forward_pre_hook(embedded, with_kwargs=True),
        ]
        output = llava.model(**inputs, use_cache=True)
        held["cache"] = weakref.ref(output.past_key_values)
        held["keys"] = weakref.ref(output.past_key_values.layers[0].keys)
        del output
        gc.collect()
        assert {what for what, ref in held.items() if ref() is not None} == set()
        assert run.trace and run.report()["tokens"]["original"] > 0
        for handle in handles:
            handle.remove()
