"""Decoding on a pruned cache, and a text turn behind it: against one run on all tokens, with the
dropped ones hidden in its masks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import prunus
from prunus import Fixed, Method, Random
from tests.support.decoders import DEPTH, WINDOW, Decoder
from tests.support.oracles.masked import continued, positions
from tests.support.oracles.own_masks import masked_logits
from tests.support.proof.bench import ONE, PROMPTS, RAGGED, gap, model_of, placed, valid_of, visible
from tests.support.proof.cuts import SOME

STEPS = 2 * WINDOW  # generated tokens: at the end no window reaches the image
DECODINGS: dict[str, tuple[tuple[int, ...], Sequence[Method], bool]] = {  # by generate?
    "one, by hand": (ONE, [Random(keep=4, layer=1)], False),
    "ragged, by hand": (RAGGED, [Random(keep=9, layer=1), Random(keep=4, layer=3)], False),
    "ragged, before": (RAGGED, [Random(keep=4, layer=None)], True),
    "ragged, trimmed": (RAGGED, [Fixed(SOME, layer=2, trim_cache=True)], True),
}


@dataclass(frozen=True)
class Decoded:
    """Errors of the generated tokens and of a turn of three tokens behind them, and the cache after
    that: for each layer the tokens it holds, those it is to hold, and its logical length."""

    steps: float
    turn: float
    held: list[int]
    bound: list[int]
    logical: list[int]
    length: int


def decodings(decoder: Decoder, backend: str) -> dict[str, Decoded]:
    """Decoding under each of :data:`DECODINGS`."""
    return {name: decoded(decoder, backend, *setting) for name, setting in DECODINGS.items()}


def decoded(
    decoder: Decoder,
    backend: str,
    images: Sequence[int],
    methods: Sequence[Method],
    generate: bool,
) -> Decoded:
    """Greedy tokens by ``generate``, or by calls of ``forward``, and the turn."""
    inputs, model = PROMPTS.rows(*images), model_of(decoder)
    length = inputs["input_ids"].shape[1]
    model.set_attn_implementation(backend)
    try:
        with prunus.prune(model, list(methods)) as run:
            sequences, logits, cache = (_generated if generate else _walked)(model, inputs)
            more = torch.tensor([[31, 32]]).expand(len(sequences), -1)
            full = continued(inputs, torch.cat([sequences, more], dim=1))
            turn = _turn(model, full, cache)
    finally:
        model.set_attn_implementation("eager")
    masks = visible(run.trace, full, length)
    expected = masked_logits(model, placed(full), masks)
    return Decoded(
        gap(logits, expected[:, length - 1 : length - 1 + STEPS]),
        gap(turn, expected[:, -3:]),
        [layer.keys.shape[-2] for layer in cache.layers],
        _bound(decoder, masks, inputs, full),
        [cache.get_seq_length(layer) for layer in range(DEPTH)],
        full["input_ids"].shape[1],
    )


def _turn(model: Any, full: dict[str, Tensor], cache: Any) -> Tensor:
    """Logits of the last three tokens of ``full``, the first of which was generated last."""
    with torch.no_grad():
        logits: Tensor = model(
            input_ids=full["input_ids"][:, -3:],
            attention_mask=full["attention_mask"],
            position_ids=positions(model, full)[:, -3:],
            past_key_values=cache,
        ).logits
    return logits


def _generated(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Any]:
    """Sequences ``[B, L + STEPS]``, logits of each step, and the cache, by ``generate``."""
    out = model.generate(
        **inputs,
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences, torch.stack(out.logits, dim=1), out.past_key_values


def _walked(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Any]:
    """The same by calls of ``forward``, which for one sample get neither mask nor position ids."""
    alone, sequences, logits = len(inputs["input_ids"]) == 1, inputs["input_ids"], []

    def said(call: dict[str, Tensor], last: int) -> dict[str, Tensor]:
        if alone:
            return {}
        where = placed(call)["position_ids"][:, -last:]
        return {"attention_mask": call["attention_mask"], "position_ids": where}

    with torch.no_grad():
        call = {name: value for name, value in inputs.items() if name != "attention_mask"}
        out = model(**call, **said(inputs, sequences.shape[1]), use_cache=True)
        for step in range(STEPS):
            logits.append(out.logits[:, -1])
            best = out.logits[:, -1:, :90].argmax(-1)  # no placeholder
            sequences = torch.cat([sequences, best], dim=1)
            if step < STEPS - 1:
                full = continued(inputs, sequences)
                out = model(input_ids=best, past_key_values=out.past_key_values, **said(full, 1))
    return sequences, torch.stack(logits, dim=1), out.past_key_values


def _bound(
    decoder: Decoder, masks: list[Tensor], inputs: dict[str, Tensor], full: dict[str, Tensor]
) -> list[int]:
    """What each layer's cache is to hold: where nothing was dropped, all slots; else what is
    visible behind the prompt, in the longest row; of these what the next token's window reaches."""
    length, total = inputs["input_ids"].shape[1], full["input_ids"].shape[1]
    found = []
    for mask, window in zip(masks, windows(decoder), strict=True):
        seen = mask[:, -1, :length]
        if bool((seen == valid_of(inputs)).all()):
            seen = torch.ones_like(seen)
        first = 0 if window is None else max(0, total - window + 1)
        found.append(int(seen[:, first:].sum(1).max()) + total - max(first, length))
    return found


@functools.cache
def windows(decoder: Decoder) -> list[int | None]:
    """Of each layer, the window of its cache in the unmodified model."""
    with torch.no_grad():
        cache = model_of(decoder)(**PROMPTS.rows(1), use_cache=True).past_key_values
    return [getattr(layer, "sliding_window", None) for layer in cache.layers]
