"""Decoders with linear attention: a cut is a shorter sequence to them.

The oracle (:mod:`tests.support.oracles.layered`) runs the unmodified layers, one sample at a time
and without a cache, on what is left: no mask, no padding, no state.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, Fixed, Knockout, Method, Random, Uniform
from prunus.engine.cache import PrunedState
from prunus.errors import PrunusError, PrunusStateError
from tests.support.decoder_list import LINEAR
from tests.support.decoders import DEPTH, Decoder
from tests.support.llava import TOKENS
from tests.support.oracles import layered
from tests.support.oracles.masked import continued, positions, visibility
from tests.support.proof.bench import ONE, PROMPTS, RAGGED, alive, gap, model_of, plain, prompt

LOGITS = 1e-4  # relative to the largest logit
STEPS = 12
known = [decoder for decoder in LINEAR if decoder.known]
every = pytest.mark.parametrize("decoder", known, ids=lambda decoder: decoder.name)
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])
first = known[0]  # linear attention in layers 1 and 2 of four
linear_first = known[1]  # in layers 0 to 2

CUTS: dict[str, tuple[tuple[int, ...], Sequence[Method]]] = {
    "one, layer 1": (ONE, [Uniform(keep=5, layer=1)]),
    "one, before": (ONE, [Random(keep=5, layer=None)]),
    "ragged, layer 0": (RAGGED, [Uniform(keep=6, layer=0)]),
    "ragged, layer 2": (RAGGED, [Random(keep=4, layer=2)]),
    "ragged, before": (RAGGED, [Random(keep=4, layer=None)]),
    "ragged, two cuts": (RAGGED, [Random(keep=9, layer=1), Random(keep=4, layer=3)]),
    "a row without images": ((1, 0), [Random(keep=4, layer=2)]),
}


def shorter(model: Any, call: dict[str, Tensor], trace: Any, prompt: int | None = None) -> Tensor:
    """Logits ``[B, L, V]`` of the shorter sequences."""
    ids = call["input_ids"]
    valid = call.get("attention_mask", torch.ones_like(ids))
    length = ids.shape[1] if prompt is None else prompt
    spots = PROMPTS.spots(ids[:, :length])
    seen = visibility(trace, spots, valid, DEPTH, length)
    return layered.replayed(model, {**call, "attention_mask": valid}, seen, trace)


@every
@backends
@pytest.mark.parametrize("name", CUTS)
def test_a_cut_is_a_shorter_sequence(decoder: Decoder, backend: str, name: str) -> None:
    (images, methods), model = CUTS[name], model_of(decoder)
    call = prompt(*images)
    model.set_attn_implementation(backend)
    with prunus.prune(model, list(methods)) as run:
        found = plain(model, call)
    model.set_attn_implementation("eager")
    expected, left = shorter(model, call, run.trace), alive(run.trace, call)
    assert gap(found, expected, left) < LOGITS
    assert gap(found[:, -1], plain(model, call)[:, -1]) > 1e-3  # it does something


@every
def test_everything_kept_is_the_plain_run(decoder: Decoder) -> None:
    model, call = model_of(decoder), prompt(*RAGGED)
    with prunus.prune(model, Uniform(keep=1.0, layer=1)):
        found = plain(model, call)
    assert gap(found, plain(model, call), call["attention_mask"].bool()) < 1e-5


@every
@pytest.mark.parametrize("layer", [None, 0, 2])
def test_steps_and_a_turn_equal_computing_anew(decoder: Decoder, layer: int | None) -> None:
    """With a cache whose states have read what was left."""
    inputs, model = PROMPTS.rows(*RAGGED), model_of(decoder)
    length = inputs["input_ids"].shape[1]
    with prunus.prune(model, Random(keep=4, layer=layer)) as run, torch.no_grad():
        out = model.generate(
            **inputs,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        more = torch.tensor([[31, 32]]).expand(len(out.sequences), -1)
        full = continued(inputs, torch.cat([out.sequences, more], dim=1))
        turn = model(
            input_ids=full["input_ids"][:, -3:],
            attention_mask=full["attention_mask"],
            position_ids=positions(model, full)[:, -3:],
            past_key_values=out.past_key_values,
        ).logits
    expected = shorter(model, full, run.trace, length)
    steps = torch.stack(out.logits, dim=1)
    assert gap(steps, expected[:, length - 1 : length - 1 + STEPS]) < LOGITS
    assert gap(turn, expected[:, -3:]) < LOGITS


def test_beams_take_their_states_along() -> None:
    inputs, model = PROMPTS.rows(2, 1), model_of(first)
    length, beams, steps = inputs["input_ids"].shape[1], 3, 6
    with prunus.prune(model, Random(keep=4, layer=2)) as run:
        out = model.generate(
            **inputs,
            max_new_tokens=steps,
            min_new_tokens=steps,
            num_beams=beams,
            num_return_sequences=beams,
            length_penalty=0.0,
            output_scores=True,
            return_dict_in_generate=True,
        )
    for row in range(2):
        own = slice(row * beams, (row + 1) * beams)
        for sequence, score in zip(out.sequences[own], out.sequences_scores[own], strict=True):
            full = continued(PROMPTS.one(inputs, row), sequence[None])
            trace = [entry.of(row) for entry in run.trace]
            logits = shorter(model, full, trace, length)[0, length - 1 : -1]
            chosen = logits.log_softmax(-1).gather(1, sequence[length:, None]).sum()
            assert abs(float(chosen) - float(score)) < 1e-3


def test_masked_out_image_tokens_stay_what_they_are() -> None:
    """A mask hides them from attention, and makes them zeros in the sequence of other layers: as in
    the unmodified language model, given what is left."""
    model, call = model_of(first), prompt(*ONE)
    (spot,) = PROMPTS.spots(call["input_ids"])[0]
    mask = torch.ones_like(call["input_ids"])
    mask[0, spot[2:5]] = 0
    call["attention_mask"] = mask
    embeds = layered.entering(model, call)
    for kept in (list(range(TOKENS)), [n for n in range(TOKENS) if n % 2 or n == 4]):
        with prunus.prune(model, Fixed(kept, layer=None)):
            found = plain(model, call)
        gone = {spot[n] for n in range(TOKENS) if n not in kept}
        left = [place for place in range(mask.shape[1]) if place not in gone]
        with torch.no_grad():
            states = model.model.language_model(
                inputs_embeds=embeds[:, left],
                attention_mask=mask[:, left],
                position_ids=torch.tensor([left]),
            ).last_hidden_state
            expected = model.lm_head(states)
        assert gap(found[:, left], expected, mask[:, left].bool()) < LOGITS


def test_a_report_counts_tokens_and_says_what_it_does_not_count() -> None:
    model, call = model_of(first), prompt(*ONE)
    with prunus.prune(model, Uniform(keep=5, layer=1)) as run:
        plain(model, call)
    report = run.report()
    assert report["tokens"]["per_layer"] == [TOKENS, 5, 5, 5]
    assert report["flops"] is None and report["kv_bytes"] is None
    assert "linear attention" in report["uncounted"]["kv_bytes"]


def test_packed_lengths_are_refused() -> None:
    model, call = model_of(first), prompt(*ONE)
    lengths = torch.tensor([0, call["input_ids"].shape[1]], dtype=torch.int32)
    with prunus.prune(model, Uniform(keep=5, layer=1)):
        with pytest.raises(PrunusError, match="cu_seq_lens_q"):
            plain(model, {**call, "cu_seq_lens_q": lengths})


ASKED: dict[str, tuple[Method, str]] = {
    "row": (CLSE(keep=5, variant="hybrid", layers=(3,), reference=1), "layer 2.*no weights"),
    "edit": (Knockout(layers=(0, 2)), "layer 2.*linear attention"),
    "forget": (Knockout(layers=(3,), forget=True, mask="both"), ""),
    "trim": (Fixed([0, 3], layer=2, trim_cache=True), "layer 1.*cannot forget"),
    "trim before": (Fixed([0, 3], layer=1, trim_cache=True), ""),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_such_a_layer_cannot_give_is_refused_early(name: str) -> None:
    method, message = ASKED[name]
    model, call = model_of(first), prompt(*ONE)
    if not message:
        with prunus.prune(model, method) as run:
            plain(model, call)
        assert run.prompts
        return
    with pytest.raises(PrunusError, match=message):
        prunus.prune(model, method)


def _begun(model: Any) -> tuple[dict[str, Tensor], Any, Any]:
    inputs = PROMPTS.rows(1)
    with prunus.prune(model, Uniform(keep=5, layer=1)) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    return inputs, run, cache


@pytest.mark.parametrize("token", [[[41]], [[41, 42]]])
def test_a_pruned_state_is_not_continued_outside(token: list[list[int]]) -> None:
    """Nor afterwards inside: a part of it has read the token. A reset makes it as good as new."""
    model = model_of(linear_first)
    inputs, run, cache = _begun(model)
    with torch.no_grad():
        with pytest.raises(PrunusStateError, match="while pruning is active"):
            model(input_ids=torch.tensor(token), past_key_values=cache)
        with run, pytest.raises(PrunusStateError, match="start a new prompt"):
            model(input_ids=torch.tensor(token), past_key_values=cache)
        cache.reset()
        again = model(**inputs, past_key_values=cache).logits
    assert gap(again, plain(model, inputs)) < 1e-6


def test_keys_in_front_of_states_refuse_before_these_change() -> None:
    model = model_of(first)
    _, run, cache = _begun(model)
    plan = copy.deepcopy(cache)
    token = torch.tensor([[41]])
    with torch.no_grad():
        with pytest.raises(PrunusStateError, match="while pruning is active"):
            model(input_ids=token, past_key_values=cache)
        with run:
            found = model(input_ids=token, past_key_values=cache).logits
            expected = model(input_ids=token, past_key_values=plan).logits
    assert torch.equal(found, expected)


def test_a_state_cannot_be_cropped() -> None:
    _, _, cache = _begun(model_of(first))
    state = next(one for one in cache.layers if isinstance(one, PrunedState))
    with pytest.raises(PrunusError, match="cannot forget"):
        state.crop(-1)
