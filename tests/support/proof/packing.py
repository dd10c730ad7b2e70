"""Two samples in one row, told apart by position ids that restart: against the model's own masks,
and against each sample alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prunus import Fixed, Method, Random
from tests.support.decoders import Decoder
from tests.support.proof.bench import PROMPTS, alive, gap, model_of, plain, pruned
from tests.support.proof.cuts import cut

METHODS: dict[str, Sequence[Method]] = {
    "layer 0": [Random(keep=5, layer=0)],
    "layers 1 and 3": [Random(keep=9, layer=1), Random(keep=4, layer=3)],
    "before": [Random(keep=5, layer=None)],
}


def packed() -> tuple[dict[str, Any], int]:
    """A row of two samples with an image each, and where the second starts."""
    one, two = PROMPTS.rows(1, seed=3), PROMPTS.rows(1, text=9, seed=4)
    sizes = [part["input_ids"].shape[1] for part in (one, two)]
    call: dict[str, Any] = {
        "input_ids": torch.cat([one["input_ids"], two["input_ids"]], dim=1),
        "pixel_values": torch.cat([one["pixel_values"], two["pixel_values"]]),
        "position_ids": torch.cat([torch.arange(size) for size in sizes])[None],
        "use_cache": False,
    }
    return call, sizes[0]


def packing(decoder: Decoder, backend: str) -> dict[str, float]:
    """Cuts of a packed row against its own masks; where the unmodified model keeps the samples of
    such a row apart, also against each sample alone."""
    call, start = packed()
    errors = {name: cut(decoder, backend, methods, call) for name, methods in METHODS.items()}
    if keeps_apart(decoder):
        methods = METHODS["layers 1 and 3"]
        together, trace = pruned(decoder, backend, methods, call)
        for number, part in enumerate(_apart(call, start)):
            own = [Fixed([[one.kept[0][number]]], one.layer) for one in trace]
            alone, single = pruned(decoder, backend, own, part)
            piece = together[:, start:] if number else together[:, :start]
            errors[f"sample {number} alone"] = gap(piece, alone, alive(single, part))
    return errors


@functools.cache
def keeps_apart(decoder: Decoder) -> bool:
    """Whether samples packed in a row do not see each other in the unmodified model."""
    (call, start), model = packed(), model_of(decoder)
    whole = plain(model, call)
    first, second = (plain(model, part) for part in _apart(call, start))
    return max(gap(whole[:, :start], first), gap(whole[:, start:], second)) < 1e-5


def _apart(call: dict[str, Any], start: int) -> list[dict[str, Tensor]]:
    """The samples of a packed row by themselves."""
    ids, pixels = call["input_ids"], call["pixel_values"]
    return [
        {"input_ids": ids[:, :start], "pixel_values": pixels[:1]},
        {"input_ids": ids[:, start:], "pixel_values": pixels[1:]},
    ]
