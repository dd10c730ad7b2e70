"""A thread inside the model while pruning begins or ends: wherever it is, its call is pruned as a
whole or not at all. The thread is stopped at chosen modules, so that nothing is left to chance."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import prunus
from prunus import CLSE, EvoPrune, Knockout, VisiPruner
from prunus.engine import hooks
from prunus.pruners.visionzip import VisionZip
from tests.support.llava import llava_clip
from tests.support.models import prompts_for
from tests.support.random_selectors import RandomStepwise

METHODS = {
    "tower": EvoPrune(keep=0.5),
    "tower looks": VisionZip(keep=5),
    "rows": CLSE(keep=6, variant="released"),
    "edit": Knockout(layers=(1, 2), mask="both", forget=True),
    "decides": VisiPruner(layer_threshold=2, relative=0.1, shallow_layers=1, exit_count=2),
    "learned": RandomStepwise(bias=-1.0),
}
TOWER, LAYERS = "model.vision_tower.encoder.layers", "model.language_model.layers"
#: In the order in which they run; "" is the whole model.
PLACES = [
    "",
    "model",
    "model.vision_tower",
    f"{TOWER}.0",
    f"{TOWER}.0.layer_norm2",
    f"{TOWER}.0.mlp",
    f"{TOWER}.1.self_attn.q_proj",
    "model.multi_modal_projector",
    "model.multi_modal_projector.linear_2",
    "model.language_model",
    f"{LAYERS}.0",
    f"{LAYERS}.1.self_attn",
    f"{LAYERS}.1.self_attn.o_proj",
    f"{LAYERS}.2.mlp",
    "lm_head",
]


class Stops:
    """Holds up one thread at the modules that it is told."""

    def __init__(self, model: nn.Module, places: list[str]) -> None:
        self.places, self.thread = list(places), 0
        self.there, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self._handles = [
            model.get_submodule(place).register_forward_pre_hook(self._hook(place))
            for place in dict.fromkeys(places)
        ]

    def _hook(self, place: str) -> Callable[..., None]:
        def stop(*_: Any) -> None:
            if threading.get_ident() == self.thread and self.places[:1] == [place]:
                self.places.pop(0)
                self.there.release()
                assert self.go.acquire(timeout=30)

        return stop

    def reached(self) -> None:
        """Wait until the thread stands at its next place."""
        assert self.there.acquire(timeout=30)

    def remove(self) -> None:
        """Take the stops away."""
        for handle in self._handles:
            handle.remove()


@contextmanager
def visitor(
    model: nn.Module, call: Callable[[], Any], places: list[str]
) -> Iterator[tuple[Stops, list[Any]]]:
    """A thread that makes one ``call`` and stops at ``places``; what it gave, or what it raised."""
    stops, found = Stops(model, places), list[Any]()

    def work() -> None:
        stops.thread = threading.get_ident()
        try:
            with torch.no_grad():
                found.append(call())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stops, found
    finally:
        for _ in places:
            stops.go.release()
        thread.join(30)
        stops.remove()
    assert not thread.is_alive()


def forward(model: nn.Module) -> Callable[[], Any]:
    inputs = prompts_for("llava-clip").rows(2, 1)
    return lambda: model(**inputs, use_cache=False).logits


def leave(run: prunus.Run, stops: Stops) -> None:
    """End pruning while the visitor stands where it is, or, where that is waited for, as it goes
    on."""
    leaving = threading.Thread(target=run.detach)
    leaving.start()
    leaving.join(0.05)
    stops.go.release()
    leaving.join(30)
    assert not leaving.is_alive()


@pytest.mark.parametrize("name", METHODS)
def test_pruning_begins_and_ends_while_a_call_is_inside(name: str) -> None:
    """It began before the block: it is not pruned, wherever the block begins and ends."""
    model = llava_clip()
    call = forward(model)
    with torch.no_grad():
        dense = call()
    pairs = list(itertools.combinations_with_replacement(PLACES, 2))
    for begin, end in pairs if name == "tower" else pairs[:: len(METHODS) - 1]:
        places = [begin] if begin == end else [begin, end]
        run = prunus.prune(model, METHODS[name])
        with visitor(model, call, places) as (stops, found):
            stops.reached()
            run.attach()
            if begin != end:
                stops.go.release()
                stops.reached()
            leave(run, stops)
        assert isinstance(found[0], torch.Tensor), (begin, end, found)
        assert torch.equal(found[0], dense), (begin, end)
        with torch.no_grad():
            assert torch.equal(call(), dense)


@pytest.mark.parametrize("name", METHODS)
def test_pruning_ends_while_a_call_is_inside(name: str) -> None:
    """It began inside the block, and is pruned to its end."""
    model = llava_clip()
    call = forward(model)
    with torch.no_grad():
        dense = call()
        with prunus.prune(model, METHODS[name]):
            pruned = call()
    for place in PLACES:
        run = prunus.prune(model, METHODS[name]).attach()
        with visitor(model, call, [place]) as (stops, found):
            stops.reached()
            leave(run, stops)
        expected = pruned if place else dense
        assert isinstance(found[0], torch.Tensor), (place, found)
        assert torch.equal(found[0], expected), place
        with torch.no_grad():
            assert torch.equal(call(), dense)


def test_a_call_that_comes_too_late_is_not_pruned_by_the_next_block_either() -> None:
    """It comes while the first block waits for another thread, and is in the tower when the next
    block begins, and ends."""
    model = llava_clip()
    call = forward(model)
    with torch.no_grad():
        dense = call()
    first, second = (prunus.prune(model, METHODS["tower"]) for _ in range(2))
    for begin, end in itertools.combinations(PLACES[1:], 2):
        first.attach()
        leaving = threading.Thread(target=first.detach)
        with visitor(model, call, ["model.language_model"]) as (early, _):
            early.reached()
            leaving.start()
            while not first._engine._traffic.closing:
                pass
            with visitor(model, call, [begin, end]) as (stops, found):
                stops.reached()
                early.go.release()
                leaving.join(30)
                second.attach()
                stops.go.release()
                stops.reached()
                leave(second, stops)
        assert isinstance(found[0], torch.Tensor), (begin, end, found)
        assert torch.equal(found[0], dense), (begin, end)


@pytest.mark.parametrize("end", PLACES[2:9])
def test_pruning_ends_while_features_are_made(end: str) -> None:
    """A tower that runs by itself, or for a method of the model, ends as it began."""
    model, inputs = llava_clip(), prompts_for("llava-clip").rows(2, 1)

    def features() -> Any:
        return torch.cat(model.get_image_features(inputs["pixel_values"]).pooler_output)

    def tower() -> Any:
        return model.model.vision_tower(inputs["pixel_values"]).last_hidden_state

    for call in [features] if "projector" in end else [features, tower]:
        run = prunus.prune(model, METHODS["tower"])
        with run, torch.no_grad():
            expected = call()
        run.attach()
        with visitor(model, call, [end]) as (stops, found):
            stops.reached()
            leave(run, stops)
        assert torch.equal(found[0], expected)


def test_a_tower_that_raises_is_not_waited_for() -> None:
    model, inputs = llava_clip(), prompts_for("llava-clip").rows(1)

    def explode(*_: Any) -> None:
        raise MemoryError

    for place in PLACES[2:9]:
        handle = model.get_submodule(place).register_forward_hook(explode)
        run = prunus.prune(model, METHODS["tower"]).attach()
        with ThreadPoolExecutor(1) as other, torch.no_grad():
            work = other.submit(model.get_image_features, inputs["pixel_values"])
            assert isinstance(work.exception(), MemoryError)
            start = time.monotonic()
            run.detach()
            assert time.monotonic() - start < 10
        handle.remove()


def test_the_next_block_waits_until_the_last_one_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They use the same hooks: the rest of the first one would take out what the second set."""
    model = llava_clip()
    call = forward(model)
    first, second = (prunus.prune(model, METHODS["rows"]) for _ in range(2))
    with second, torch.no_grad():
        pruned = call()
    first.attach()
    halfway, go, remove = threading.Event(), threading.Event(), hooks._remove

    def slowly(module: nn.Module, owner: object | None) -> None:
        if module is model.model.language_model.layers[0]:
            halfway.set()
            go.wait(30)
        remove(module, owner)

    monkeypatch.setattr(hooks, "_remove", slowly)
    leaving = threading.Thread(target=first.detach)
    leaving.start()
    assert halfway.wait(30)
    coming = threading.Thread(target=second.attach)
    coming.start()
    coming.join(0.2)
    go.set()
    leaving.join(30)
    coming.join(30)
    with torch.no_grad():
        assert torch.equal(call(), pruned)
    second.detach()


def test_attention_that_was_looked_up_before_pruning_ended() -> None:
    """transformers finds the function in one line and calls it in the next."""
    model = llava_clip()
    attention = model.model.language_model.layers[1].self_attn
    states = [torch.randn(1, heads, 3, 8) for heads in (8, 4, 4)]
    with prunus.prune(model, METHODS["rows"]):
        found = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
    own = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
    assert found is not own
    assert torch.equal(found(attention, *states, None)[0], own(attention, *states, None)[0])
