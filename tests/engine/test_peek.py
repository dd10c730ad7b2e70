"""Attention of the layer about to run: a look at it disturbs nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

import prunus
from prunus.pruners.fastv import FastV
from prunus.pruners.pyramiddrop import PyramidDrop
from tests.support.models import Case, case_of
from tests.support.runs import plain

AT = 2


@pytest.fixture
def llava() -> Case:
    return case_of("llava-clip")


def kept(run: Any) -> list[int]:
    return run.trace[0].kept[0][0].tolist()


def test_hooks_of_a_user_on_that_layer_are_seen_once(llava: Case) -> None:
    """A hook that steers the states in front of the layer is as good as one behind the layer
    before: the look sees them steered, and steered once."""
    inputs, layers = llava.prompts.rows(1), llava.model.model.language_model.layers
    steer = 3 * torch.randn(
        llava.model.config.text_config.hidden_size, generator=torch.Generator().manual_seed(0)
    )
    calls = []

    def in_front(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        calls.append("front")
        if args:
            return (args[0] + steer, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + steer}

    def behind(module: Any, args: Any, output: Any) -> Any:
        return (output[0] + steer, *output[1:]) if isinstance(output, tuple) else output + steer

    found = []
    for layer, hook in ((AT, in_front), (AT - 1, behind)):
        handle = (
            layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
            if hook is in_front
            else layers[layer].register_forward_hook(hook)
        )
        with prunus.prune(llava.model, PyramidDrop(layers=(AT,))) as run:
            found.append((plain(llava.model, inputs), kept(run)))
        handle.remove()
    assert found[0][1] == found[1][1] and calls == ["front"]
    assert (found[0][0] - found[1][0]).abs().max() < 1e-5


def test_a_plain_hook_gets_the_states_where_the_model_gives_them(llava: Case) -> None:
    inputs, layers = llava.prompts.rows(1), llava.model.model.language_model.layers
    sizes: list[int] = []

    def note(module: Any, args: tuple[Tensor, ...]) -> None:
        sizes.append(args[0].shape[1])

    handle = layers[AT].register_forward_pre_hook(note)
    with prunus.prune(llava.model, PyramidDrop(layers=(AT,))):
        plain(llava.model, inputs)
    handle.remove()
    assert len(sizes) == 1


def test_dropout_in_training_is_that_of_the_model(llava: Case) -> None:
    """At the setting that keeps everything, the loss is the unpruned model's, lots included."""
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.3, r=4)
    model = get_peft_model(llava.model, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(len(name)))
    model.train()
    inputs = llava.prompts.rows(1)
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    losses = []
    for method in (None, PyramidDrop(layers=(AT,), ratio=1.0), FastV(keep=1.0, layer=AT)):
        torch.manual_seed(0)
        if method is None:
            losses.append(float(model(**inputs, labels=labels, use_cache=False).loss))
            continue
        with prunus.prune(model, method):
            losses.append(float(model(**inputs, labels=labels, use_cache=False).loss))
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[2] == pytest.approx(losses[0], abs=1e-5)
