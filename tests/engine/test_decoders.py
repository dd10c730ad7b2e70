"""The engine on every decoder class: what it shows, edits and cuts is what the model computes.

Each decoder is the language model of a LLaVA (:mod:`tests.support.decoders`); the oracles are the
unmodified model itself (:mod:`own_masks` and :mod:`own_attention` in ``tests.support.oracles``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from prunus import CLSE, Random
from prunus.errors import PrunusError
from tests.support.decoder_list import DECODERS, REFUSED
from tests.support.decoders import Decoder
from tests.support.proof.bench import ONE, RAGGED, model_of, plain, prompt, pruned
from tests.support.proof.cuts import cut, cuts, given_masks
from tests.support.proof.decoding import decodings
from tests.support.proof.edits import edits
from tests.support.proof.packing import packed, packing
from tests.support.proof.rows import Probe, rows

LOGITS = 1e-4  # relative to the largest logit
ROW = OTHERS = 1e-5


def cases(decoders: Sequence[Decoder]) -> list[Any]:
    """Every decoder on every backend that it has."""
    return [
        pytest.param(
            decoder,
            backend,
            id=f"{decoder.name}-{backend}",
            marks=pytest.mark.skipif(not decoder.known, reason="not in this transformers"),
        )
        for decoder in decoders
        for backend in decoder.backends
    ]


every = pytest.mark.parametrize(("decoder", "backend"), cases(DECODERS))


def assert_small(errors: Mapping[str, float], tolerance: float) -> None:
    wrong = {name: error for name, error in errors.items() if not error < tolerance}
    assert errors and not wrong, wrong


@every
def test_a_row_is_that_of_the_eager_map(decoder: Decoder, backend: str) -> None:
    if decoder.calls > 1:  # which of them?
        with pytest.raises(PrunusError, match="several times"):
            rows(decoder, backend)
        return
    errors = rows(decoder, backend)
    assert_small({"row": errors.pop("row")}, ROW)
    assert_small(errors, OTHERS)


@every
def test_an_edit_is_that_of_eager_attention(decoder: Decoder, backend: str) -> None:
    assert_small(edits(decoder, backend), LOGITS)


@every
def test_a_cut_hides_what_it_drops_and_nothing_else(decoder: Decoder, backend: str) -> None:
    assert_small(cuts(decoder, backend), LOGITS)


@every
def test_masks_of_the_caller_stay_what_they_are(decoder: Decoder, backend: str) -> None:
    assert_small(given_masks(decoder, backend), LOGITS)


@every
def test_every_step_and_a_turn_behind_a_cut(decoder: Decoder, backend: str) -> None:
    for name, found in decodings(decoder, backend).items():
        assert_small({f"{name}, steps": found.steps, f"{name}, turn": found.turn}, LOGITS)
        assert found.logical == [found.length] * len(found.held), name
        assert found.held == found.bound, name


@every
def test_packed_samples_stay_apart(decoder: Decoder, backend: str) -> None:
    assert_small(packing(decoder, backend), LOGITS)


@every
def test_the_last_token_of_packed_samples_is_not_guessed(decoder: Decoder, backend: str) -> None:
    call, _ = packed()
    for method in (CLSE(keep=5, variant="hybrid", layers=(2,), reference=0), Probe()):
        with pytest.raises(PrunusError, match="(?i)pack"):
            pruned(decoder, backend, [method], call)


def refusal_or_error(
    decoder: Decoder, backend: str, layer: int | None, call: dict[str, Any], cause: str
) -> float:
    """0 if a cut at ``layer`` is refused and ``cause`` found in the message, else its error."""
    refusal = ""
    try:
        return cut(decoder, backend, [Random(keep=5, layer=layer)], call)
    except PrunusError as error:
        refusal = str(error)
    assert re.search(cause, refusal), refusal
    return 0.0


@pytest.mark.parametrize(("decoder", "backend"), cases(list(REFUSED)))
def test_what_cannot_be_right_is_refused_by_what_it_is(decoder: Decoder, backend: str) -> None:
    model, cause = model_of(decoder), REFUSED[decoder]
    calls: list[dict[str, Any]] = [prompt(*ONE), prompt(*RAGGED)]
    calls += [{**call, "use_cache": False} for call in calls]
    before = [plain(model, call) for call in calls]
    for number, call in enumerate(calls):
        for layer in (None, 0, 1, 3):
            error = refusal_or_error(decoder, backend, layer, call, cause)
            assert error < LOGITS, (number, layer)
            if "use_cache" not in call and layer == 1:  # others may be right
                assert not error
    for call, logits in zip(calls, before, strict=True):  # and nothing stayed behind
        assert torch.equal(plain(model, call), logits)


def test_there_are_enough_of_them() -> None:
    """Twenty classes, twelve of them in a LLaVA: all of ours are."""
    known = [decoder for decoder in DECODERS if decoder.known]
    classes = {type(model_of(decoder).model.language_model).__name__ for decoder in known}
    assert len(classes) >= 20
