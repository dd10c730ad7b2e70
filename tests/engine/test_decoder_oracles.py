"""The oracles of :mod:`tests.engine.test_decoders`, against each other and without the engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from prunus import Edit, TraceEntry
from prunus.grid import Grid
from tests.support.decoder_list import DECODERS
from tests.support.decoders import DEPTH, Decoder, layers_of
from tests.support.llava import PATCH, SIDE, TOKENS
from tests.support.oracles.masked import continued
from tests.support.oracles.own_attention import watched
from tests.support.oracles.own_masks import masked_logits
from tests.support.proof.bench import (
    ONE,
    PROMPTS,
    RAGGED,
    alive,
    gap,
    model_of,
    placed,
    plain,
    prompt,
    valid_of,
    visible,
)
from tests.support.proof.decoding import STEPS, windows
from tests.support.proof.edits import by_hand

KNOWN = [decoder for decoder in DECODERS if decoder.known]
every = pytest.mark.parametrize("decoder", KNOWN, ids=lambda decoder: decoder.name)


def entry(images: tuple[int, ...], kept: range, layer: int, edit: Edit | None = None) -> TraceEntry:
    """A selection that keeps ``kept`` of every image, or the edit of one layer."""
    grid = Grid(1, SIDE // PATCH, SIDE // PATCH, (PATCH, PATCH))
    return TraceEntry(
        place="attention" if edit else "decoder",
        layer=layer,
        method="ours",
        kept=[[torch.tensor(list(kept))] * count for count in images],
        grid=[[grid] * count for count in images],
        kind=[["image"] * count for count in images],
        edits={layer: edit} if edit else {},
    )


@every
def test_a_run_in_which_nothing_is_hidden_is_the_plain_run(decoder: Decoder) -> None:
    model = model_of(decoder)
    for images in (ONE, RAGGED):
        call = prompt(*images)
        expected = plain(model, call)
        for backend in decoder.backends:
            model.set_attn_implementation(backend)
            found = masked_logits(model, call, visible([], call))
            model.set_attn_implementation("eager")
            assert gap(found, expected, valid_of(call)) < 1e-5, backend


@every
def test_what_is_hidden_shows_and_is_hidden(decoder: Decoder) -> None:
    """A cut that did nothing would not pass; what a dropped token holds does not matter."""
    model, call = model_of(decoder), prompt(*RAGGED)
    trace = [entry(RAGGED, range(0, TOKENS, 3), 1)]
    left = alive(trace, call)
    hidden = masked_logits(model, call, visible(trace, call))
    assert gap(hidden, plain(model, call), left) > 1e-2

    def spoil(module: object, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        states = torch.where((valid_of(call) & ~left)[..., None], -states, states)
        return ((states, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": states})

    handle = layers_of(model)[1].register_forward_pre_hook(spoil, with_kwargs=True)
    spoilt = masked_logits(model, call, visible(trace, call))
    handle.remove()
    assert gap(spoilt, hidden, left) < 1e-6
    assert gap(spoilt, hidden) > 1e-3


@every
def test_backends_hide_alike(decoder: Decoder) -> None:
    model, call = model_of(decoder), prompt(*RAGGED)
    trace = [entry(RAGGED, range(0, TOKENS, 3), 1)]
    found = []
    for backend in decoder.backends:
        model.set_attn_implementation(backend)
        found.append(masked_logits(model, call, visible(trace, call)))
    model.set_attn_implementation("eager")
    assert gap(found[-1], found[0], alive(trace, call)) < 1e-5


@every
def test_maps_and_values_give_the_output(decoder: Decoder) -> None:
    """What is watched is what the model reports, apart from sinks that a map leaves out."""
    model, call = model_of(decoder), prompt(*RAGGED)
    output, found = watched(model, call)
    assert sorted(found) == list(range(DEPTH))
    assert all(len(calls) == decoder.calls for calls in found.values())
    valid = valid_of(call)
    for layer, calls in found.items():
        told = output.attentions[layer].transpose(1, 2)[valid]
        true = calls[-1].weights.transpose(1, 2)[valid]
        if decoder.model_type == "granite_swa":
            assert (told.sum(-1) - 1).abs().max() < 1e-5 and float(true.sum(-1).max()) < 1
        else:
            assert (told - true).abs().max() < 1e-6
        rows = calls[-1].weights[:, :, -1].mean(1)
        assert float(rows.max()) > 1.2 / valid.sum(1).max()  # not flat


@every
def test_an_edit_by_hand(decoder: Decoder) -> None:
    """One that keeps everything changes nothing; one that cuts shows."""
    model, call = model_of(decoder), prompt(*RAGGED)
    expected, every = plain(model, call), range(TOKENS)
    kept = by_hand(decoder, [entry(RAGGED, every, 1, Edit())], call)
    assert torch.equal(kept[valid_of(call)], expected[valid_of(call)])
    for edit in (
        Edit(text="cut"),
        Edit(visual="cut"),
        Edit(text="merge"),
        Edit(text="cut", visual="cut", renormalise=True),
    ):
        cut = by_hand(decoder, [entry(RAGGED, every, 1, edit)], call)
        assert gap(cut, expected, valid_of(call)) > 1e-3, edit


@every
def test_the_unmodified_model_decodes_what_a_full_run_says(decoder: Decoder) -> None:
    """On its own cache, far beyond every window: the oracle of decoding holds for this decoder."""
    inputs, model = PROMPTS.rows(*RAGGED), model_of(decoder)
    length = inputs["input_ids"].shape[1]
    for backend in decoder.backends:
        model.set_attn_implementation(backend)
        out = model.generate(
            **inputs,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        model.set_attn_implementation("eager")
        expected = plain(model, placed(continued(inputs, out.sequences)))
        assert gap(torch.stack(out.logits, dim=1), expected[:, length - 1 : -1]) < 1e-5, backend


def test_windows_are_shorter_than_the_image() -> None:
    found = {decoder.name: windows(decoder) for decoder in KNOWN}
    sliding = [name for name, sizes in found.items() if any(sizes)]
    assert len(sliding) >= 10
    short = [name for name in sliding if max(size for size in found[name] if size) < TOKENS]
    assert set(sliding) - set(short) == {"mistral-30"}
