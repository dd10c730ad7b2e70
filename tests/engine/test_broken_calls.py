"""Calls that did not come to their end leave nothing for the next one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Knockout, Method
from tests.support.llava import SIDE
from tests.support.models import Case

METHODS: list[Method] = [
    CLSE(keep=5, variant="hybrid"),
    Knockout(layers=(1,)),
    EvoPrune(keep=0.5),
]
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def stopped(case: Case, module: torch.nn.Module, error: type[BaseException], **call: Any) -> None:
    """A call of the model during which ``module`` raises."""

    def stop(*args: object) -> None:
        raise error

    handle = module.register_forward_pre_hook(stop)
    try:
        with pytest.raises(error):
            case.model(**call)
    finally:
        handle.remove()


@methods
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_report_of_a_prompt_that_raised(
    llava: Case, method: Method, error: type[BaseException]
) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, method) as run, torch.no_grad():
        stopped(llava, llava.model.model.language_model.layers[3].mlp, error, **inputs)
        assert isinstance(run.trace, list)
        with pytest.raises(prunus.PrunusError, match="did not come to its end"):
            run.report()
        llava.model(**inputs)
        assert run.report()


def test_labels_of_a_call_that_raised_are_forgotten(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    labels = inputs["input_ids"].clone()
    labels[:, :-4] = -100
    wrong = {**inputs, "pixel_values": torch.zeros(1, 3, SIDE - 2, SIDE - 2)}
    with prunus.prune(llava.model, METHODS[0]) as run, torch.no_grad():
        kept = []
        for _ in range(2):
            llava.model.model(**inputs)
            kept.append(run.trace[0].kept[0][0].tolist())
            with pytest.raises(ValueError, match="doesn't match"):
                llava.model(**wrong, labels=labels)
    assert kept[0] == kept[1]


@methods
def test_the_language_model_alone_behind_a_call_that_raised(llava: Case, method: Method) -> None:
    """It is not taken for a part of that call."""
    inputs, embeds = llava.prompts.rows(1), torch.randn(1, 5, 64)
    alone = llava.model.model.language_model
    with torch.no_grad():
        expected = alone(inputs_embeds=embeds).last_hidden_state
        with prunus.prune(llava.model, method):
            stopped(llava, llava.model.model.multi_modal_projector, MemoryError, **inputs)
            assert torch.equal(alone(inputs_embeds=embeds).last_hidden_state, expected)


def test_the_tower_of_a_call_that_raised_is_forgotten(llava: Case) -> None:
    """Its images did not fit the placeholders, which shows only behind the tower."""
    inputs, embeds = llava.prompts.rows(1), torch.randn(1, 5, 64)
    alone = llava.model.model.language_model
    with prunus.prune(llava.model, EvoPrune(keep=0.5)), torch.no_grad():
        with pytest.raises(ValueError, match="do not match"):
            llava.model(**{**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)})
        alone(inputs_embeds=embeds)


def test_a_call_that_came_too_late_is_over_when_pruning_begins_again(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    run = prunus.prune(llava.model, EvoPrune(keep=0.5))
    with ThreadPoolExecutor(1) as other, torch.no_grad():
        with run:
            cache = other.submit(lambda: llava.model(**inputs).past_key_values).result()
            run._engine._traffic.closing = True  # as while this thread detaches
            late = {"input_ids": torch.tensor([[41]]), "past_key_values": cache}
            with pytest.raises(prunus.PrunusError):
                other.submit(lambda: llava.model(**late)).result()
        with run:
            assert other.submit(lambda: (llava.model(**inputs), run.trace)[1]).result()


def test_what_a_prompt_held_is_let_go_of_when_it_raises(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, METHODS[0]) as run, torch.no_grad():
        stopped(llava, llava.model.model.language_model.layers[3].mlp, MemoryError, **inputs)
        left = run._engine.latest()
        assert left is not None and left.cache is None and not left.looks._kept


@methods
def test_embeddings_of_placeholders_without_an_image_are_text(llava: Case, method: Method) -> None:
    inputs = llava.prompts.rows(1)
    embeds = llava.model.get_input_embeddings()(inputs["input_ids"])
    with torch.no_grad():
        expected = llava.model(inputs_embeds=embeds).logits
        with prunus.prune(llava.model, method) as run, pytest.warns(UserWarning, match="no image"):
            assert torch.equal(llava.model(inputs_embeds=embeds).logits, expected)
    assert not run.trace


def test_a_part_of_a_model_is_refused(case: Case) -> None:
    with pytest.raises(prunus.PrunusError, match="give the whole"):
        prunus.prune(case.model.model, METHODS[0])
