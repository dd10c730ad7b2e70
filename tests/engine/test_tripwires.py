"""What the engine relies on is looked at while it runs: where it does not hold, it says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.models.llama import modeling_llama

import prunus
from prunus import CLSE, EvoPrune, Knockout, PrunusError, PrunusStateError, Uniform
from prunus.engine import engine, layers, standby
from tests.support.decoder_list import DECODERS
from tests.support.facts import in_tower
from tests.support.footprint import ours
from tests.support.models import Case
from tests.support.proof.bench import model_of, prompt
from tests.support.random_selectors import RandomStepwise
from tests.support.runs import gap, plain

SEEING = CLSE(keep=5, variant="hybrid")


def decoder(name: str) -> Any:
    """The model of one of the decoders that are proved right."""
    return model_of(next(one for one in DECODERS if one.name == name))


@pytest.mark.parametrize(
    "method", [SEEING, Knockout(layers=(1,)), Knockout(layers=(1,), renormalise=True)]
)
def test_attention_with_rules_of_its_own_is_refused(
    llava: Case, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every head gets a temperature that the arguments do not tell."""
    llava.model.set_attn_implementation("eager")
    inputs, own = llava.prompts.rows(1, 2), modeling_llama.eager_attention_forward

    def warmer(module: Any, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        return own(module, query * 1.1, *args, **kwargs)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", warmer)
    before = plain(llava.model, inputs)
    with prunus.prune(llava.model, method) as run:
        with pytest.raises(PrunusError, match="LlamaAttention has attention rules of its own"):
            plain(llava.model, inputs)
    assert run.prompts == 1 and ours(llava.model) == []
    assert torch.equal(plain(llava.model, inputs), before)


def test_attention_that_goes_another_way(llava: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that does not ask transformers for its attention function is not edited, nor seen."""
    attention = llava.model.model.language_model.layers[1].self_attn

    def other(hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, None]:
        return hidden_states, None

    monkeypatch.setattr(attention, "forward", other)
    inputs = llava.prompts.rows(1)
    for method, words in (
        (Knockout(layers=(1,)), "layer 1 cannot be edited"),
        (CLSE(keep=5, variant="hybrid", layers=(2,), reference=1), "layer 1 cannot be looked at"),
    ):
        with prunus.prune(llava.model, method):
            with pytest.raises(PrunusError, match=words):
                plain(llava.model, inputs)


def test_edits_under_a_mask_that_sees_behind(llava: Case) -> None:
    """A prefix of the caller's mask sees the text behind the image, which is computed apart: the
    same as when nothing is computed apart, since answers are known."""
    inputs = llava.prompts.rows(1)
    size = inputs["input_ids"].shape[1]
    mask = torch.ones(1, 1, size, size).tril().bool()
    mask[..., :8, :] = True
    last = size - 1
    call = {**inputs, "attention_mask": mask}
    found = []
    for labels in (None, torch.full((1, size), -100)):
        with prunus.prune(llava.model, Knockout(layers=(0, 1), renormalise=True)) as run:
            run.prompt_ends(labels=labels)
            found.append(plain(llava.model, call))
    assert gap(found[0][:, last], found[1][:, last]) < 1e-5
    assert gap(*found) < 1e-5
    with prunus.prune(llava.model, Knockout(layers=(0, 1), renormalise=True)):
        assert gap(plain(llava.model, inputs), found[0]) > 1e-3  # the prefix shows


def test_layers_that_are_skipped(llava: Case) -> None:
    """Somebody's hook takes layers away when the prompt has begun."""
    text = llava.model.config.get_text_config()

    def shorten(module: Any, args: Any) -> None:
        text.num_hidden_layers = 3

    with prunus.prune(llava.model, Uniform(keep=5)):
        handle = llava.model.model.language_model.register_forward_pre_hook(shorten)
        with pytest.raises(PrunusError, match="only 3 of 5 decoder layers ran"):
            plain(llava.model, llava.prompts.rows(1))
        handle.remove()


def test_a_layer_that_is_given_more_by_token(llava: Case) -> None:
    inputs = llava.prompts.rows(1)

    def give(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return args, {**kwargs, "depths": torch.zeros(1, states.shape[1])}

    handle = llava.model.model.language_model.layers[3].register_forward_pre_hook(
        give, with_kwargs=True
    )
    with prunus.prune(llava.model, Uniform(keep=5, layer=4)):
        plain(llava.model, inputs)  # nothing is gone yet where it is given
    # Before the cut of this very layer, the whole prompt's.
    with prunus.prune(llava.model, Uniform(keep=5, layer=3)):
        with pytest.raises(PrunusError, match=r"given 'depths' of shape \(1, 26\)"):
            plain(llava.model, inputs)
    handle.remove()


def test_a_tower_that_ran_for_nobody(llava: Case) -> None:
    """Its features go into the language model by hand, where nobody asks for merges."""
    inputs, inner = llava.prompts.rows(1), llava.model.model
    with prunus.prune(llava.model, EvoPrune(keep=0.5)), torch.no_grad():
        features = inner.get_image_features(inputs["pixel_values"]).pooler_output
        with pytest.raises(PrunusStateError, match="merged tokens in the vision tower for a call"):
            inner.language_model(inputs_embeds=torch.stack(list(features)))
        inner.language_model(inputs_embeds=torch.stack(list(features)))  # said once


def test_layers_that_run_without_the_hook_of_their_model(llava: Case) -> None:
    """As they do in code that was compiled before."""
    inner = llava.model.model.language_model
    states = torch.zeros(1, 6, llava.model.config.get_text_config().hidden_size)
    rope = inner.rotary_emb(states, torch.arange(6)[None])
    with prunus.prune(llava.model, SEEING), torch.no_grad():
        with pytest.raises(PrunusStateError, match="compiled without prunus' hooks"):
            inner.layers[0].self_attn(states, position_embeddings=rope, attention_mask=None)
        inner(inputs_embeds=states)  # by itself it may run


def test_a_layer_is_edited_or_looked_at(llava: Case) -> None:
    looks = CLSE(keep=5, variant="hybrid", layers=(2,), reference=0)
    with pytest.raises(PrunusError, match="clse looks at the attention of layer 1, which knockout"):
        prunus.prune(llava.model, [looks, Knockout(layers=(1,))])
    prunus.prune(llava.model, [looks, Knockout(layers=(0, 2))])


def test_windows_that_can_be_rolled_back() -> None:
    model, call = decoder("mistral"), prompt(1)
    with torch.no_grad():
        cache = model(**call, use_cache=True).past_key_values
    cache.layers[0].record_past = True
    with prunus.prune(model, Uniform(keep=5)):
        with pytest.raises(PrunusError, match="rolled back"):
            plain(model, {"input_ids": torch.tensor([[5]]), "past_key_values": cache})


@pytest.mark.parametrize("name", ["ministral", "mistral"])
def test_flash_attention_counts_windows_in_tokens(name: str) -> None:
    """Refused before a layer runs, whether its attention knows of the window or its cache alone."""
    model = decoder(name)
    text = model.config.get_text_config()
    before, seen = text._attn_implementation, list[int]()
    layer = model.model.language_model.layers[0]
    handle = layer.register_forward_pre_hook(lambda *_: seen.append(1))
    try:
        with prunus.prune(model, Uniform(keep=5)):
            text._attn_implementation = "flash_attention_2"
            with pytest.raises(PrunusError, match="attends in a sliding window"):
                plain(model, prompt(1))
        assert not seen
    finally:
        handle.remove()
        text._attn_implementation = before


def test_a_full_window_is_not_cropped() -> None:
    model, call = decoder("mistral"), prompt(1)
    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        cache = model(**call, past_key_values=DynamicCache(config=model.config)).past_key_values
        pruned = cache.layers[1]
        with pytest.raises(PrunusError, match="window of 8 tokens is full"):
            pruned.crop(-1)
        pruned.crop(0)


def test_a_cache_does_not_grow_by_hand(llava: Case) -> None:
    """Not even inside the block, and behind a step: the masks would be another's."""
    inputs, token = llava.prompts.rows(1), torch.tensor([[5]])
    with prunus.prune(llava.model, Uniform(keep=5)), torch.no_grad():
        cache = llava.model(**inputs, use_cache=True).past_key_values
        cache = llava.model(input_ids=token, past_key_values=cache).past_key_values
        last = cache.layers[-1]
        more = last.keys[:, :, -1:]
        with pytest.raises(PrunusStateError, match="can only be continued"):
            last.update(more, more)


def test_a_cache_whose_step_was_interrupted_is_not_continued_outside(llava: Case) -> None:
    """Between the layer's hook and its attention, so that the cache was about to grow."""
    inputs, token = llava.prompts.rows(1), torch.tensor([[5]])
    projection = llava.model.model.language_model.layers[2].self_attn.q_proj

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with prunus.prune(llava.model, Uniform(keep=5)), torch.no_grad():
        cache = llava.model(**inputs, use_cache=True).past_key_values
        handle = projection.register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            llava.model(input_ids=token, past_key_values=cache)
        handle.remove()
    layer = cache.layers[2]
    more = layer.keys[:, :, -1:]
    with pytest.raises(PrunusStateError, match="can only be continued"):
        layer.update(more, more)


@pytest.mark.parametrize("method", [EvoPrune(keep=0.5), RandomStepwise(keep=5)])
def test_nothing_of_an_interrupted_tower_is_held(llava: Case, method: Any) -> None:
    """The tower ran, and what it left waits for its prompt: the block is left before that."""
    run = prunus.prune(llava.model, method)

    def waiting() -> Any:
        engine = run._engine
        if engine._vision.stage is not None:
            return engine._vision.stage._here.done
        assert engine._vision.tap is not None
        return engine._vision.tap._here.seen

    with run, torch.no_grad():
        llava.model.model.get_image_features(llava.prompts.rows(1)["pixel_values"])
        assert waiting()
    assert not waiting()


def test_nothing_of_an_interrupted_prompt_runs_on(llava: Case) -> None:
    """Ctrl-C in a layer, the block is left, and the same run begins anew: layers that are called by
    hand then are no part of the prompt that was interrupted."""
    inner, run = llava.model.model.language_model, prunus.prune(llava.model, Uniform(keep=5))
    states = torch.randn(1, 6, inner.config.hidden_size, generator=torch.Generator().manual_seed(1))
    call = {"position_embeddings": inner.rotary_emb(states, torch.arange(6)[None])}

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with torch.no_grad():
        expected = inner.layers[3](states, attention_mask=None, **call)
        handle = inner.layers[2].register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt), run:
            llava.model(**llava.prompts.rows(1))
        handle.remove()
        with run:
            assert torch.equal(inner.layers[3](states, attention_mask=None, **call), expected)
            llava.model(**llava.prompts.rows(1))


@pytest.mark.parametrize("method", [Uniform(keep=5), EvoPrune(keep=0.5)])
def test_a_prompt_that_runs_while_prune_attaches(
    llava: Case, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in its place already: it is not pruned, or as it is to be (everything is there),
    or what the tower merged is refused."""
    inputs, found = llava.prompts.rows(1, 2), list[Tensor | str]()
    dense = plain(llava.model, inputs)
    with prunus.prune(llava.model, method):
        pruned = plain(llava.model, inputs)

    def first_a_prompt(own: Any) -> Any:
        def register(*args: Any, **kwargs: Any) -> Any:
            try:
                found.append(plain(llava.model, inputs))
            except PrunusStateError as error:
                found.append(str(error))
            return own(*args, **kwargs)

        return register

    for module, name in (
        (engine, "before"),
        (engine, "after"),
        (layers, "before"),
        (standby, "before"),
        (layers, "lend"),
    ):
        monkeypatch.setattr(module, name, first_a_prompt(getattr(module, name)))
    with prunus.prune(llava.model, method):
        assert torch.equal(plain(llava.model, inputs), pruned)
    assert len(found) > 10 and torch.equal(found[0], dense) and gap(pruned, dense) > 1e-3
    for one in found:
        if isinstance(one, str):
            assert in_tower(method) and "began before" in one
        else:
            assert torch.equal(one, dense) or torch.equal(one, pruned)
