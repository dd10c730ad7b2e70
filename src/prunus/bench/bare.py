"""The least work that gives the same result: a plain loop over the decoder layers.

It is told which tokens to keep, and runs the model's own layers on them: no scores, no choice, no
hooks, none of transformers' wrappers. Where it computes something else than the pruned model, or
the layers cannot be run like that, there is none.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

import prunus
from prunus.errors import PrunusError, brief
from prunus.families import Family
from prunus.inference.inputs import find_spots
from prunus.method import Method
from prunus.method.budget import Meaning
from prunus.results.trace import TraceEntry

#: Relative difference of last states that rounding makes.
ROUNDING = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 4e-2}


class NoBare(PrunusError):
    """There is no plain loop for this; the message says why."""


class Bare:
    """The loop for one prompt: embedding, features of the image into their places, decoder layers,
    last norm. Tower, projector and head are not in it.

    Args:
        family: the adapter of the model.
        inputs: one prompt, or several of one length.
        methods: what prunes it; empty: nothing.
        budget: what their ``keep`` counts.

    Raises:
        NoBare: it has none.
    """

    def __init__(
        self,
        family: Family,
        inputs: Mapping[str, Tensor],
        methods: Sequence[Method],
        budget: Meaning = "nominal",
    ) -> None:
        if family.text_config._attn_implementation == "eager":
            raise NoBare("eager attention needs masks, which the loop does not make")
        if not bool(inputs.get("attention_mask", torch.ones(1)).all()):
            raise NoBare("the prompts are padded")
        self._family, self._ids = family, inputs["input_ids"]
        self._lm = family.language_model
        whole, expected, trace = _seen(family, inputs, methods, budget)
        if whole.get("deepstack_visual_embeds"):
            raise NoBare("features enter behind several decoder layers (DeepStack)")
        holders = family.placeholders(self._ids, None)
        self._where = torch.stack(list(holders.values())).any(0).nonzero(as_tuple=True)
        self._features = whole["inputs_embeds"][self._where]
        ids = whole.get("position_ids")
        length = self._ids.shape[1]
        self._places = torch.arange(length, device=self._ids.device)[None] if ids is None else ids
        if self._places.ndim == 3:  # a fourth row counts the text
            self._places = self._places[-3:]
        self._takes = takes_of(family.layers[0])
        stays = _stays(find_spots(family, inputs), trace, length, self._ids.device)
        self._stays = {
            layer: index[:1] if bool((index == index[:1]).all()) else index
            for layer, index in stays.items()
        }
        try:
            found = self()
        except (TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise NoBare(f"its layers cannot be run by themselves: {brief(error)}") from error
        gap = float((found - expected).float().norm() / expected.float().norm())
        if not gap < ROUNDING[expected.dtype]:
            raise NoBare(f"a plain loop computes something else (by {gap:.1g})")

    def after(self) -> Tensor:
        """The position of the token behind the prompt, as the model takes it: int64 ``[..., B,
        1]``."""
        last = self._places[..., -1:] + 1
        return last.expand(*last.shape[:-2], len(self._ids), 1)

    def __call__(self) -> Tensor:
        """Run it: states ``[B, 1, D]`` of the last token behind the last norm."""
        return self.prefill()[0]

    def prefill(self) -> tuple[Tensor, Any]:
        """The same, and the cache that it leaves."""
        lm, cache = self._lm, DynamicCache()
        states = self._family.top.get_input_embeddings()(self._ids)
        states[self._where] = self._features
        cos, sin = lm.rotary_emb(states, self._places)
        for number, layer in enumerate(self._family.layers):
            if number in self._stays:
                states, cos, sin = (_picked(one, self._stays[number]) for one in (states, cos, sin))
            output = layer(
                states, position_embeddings=(cos, sin), use_cache=True, **{self._takes: cache}
            )
            states = output[0] if isinstance(output, tuple) else output
        return self._family.last_norm(states[:, -1:]), cache


def _seen(
    family: Family, inputs: Mapping[str, Tensor], methods: Sequence[Method], budget: Meaning
) -> tuple[dict[str, Any], Tensor, list[TraceEntry]]:
    """What the language model is given for the whole prompt, what it gives for its last token when
    it is pruned, and what was kept."""
    lm = family.language_model
    given: list[dict[str, Any]] = []
    last: list[Tensor] = []

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        given.append(dict(kwargs))

    def behind(module: Any, args: Any, output: Any) -> None:
        last.append(output.last_hidden_state[:, -1:])

    first = lm.register_forward_pre_hook(before, with_kwargs=True)
    try:
        family.top(**inputs, use_cache=False)
        second = lm.register_forward_hook(behind)
        try:
            if not methods:
                family.top(**inputs, use_cache=True)
                return given[0], last[0], []
            with prunus.prune(family.top, methods, budget=budget) as run:
                family.top(**inputs, logits_to_keep=1, use_cache=True)
                return given[0], last[0], list(run.trace)
        finally:
            second.remove()
    finally:
        first.remove()


def takes_of(module: Any) -> str:
    """What the ``forward`` of ``module`` calls its cache."""
    names = inspect.signature(type(module).forward).parameters
    found = [name for name in ("cache", "past_key_values") if name in names]
    if not found:
        raise NoBare(f"{type(module).__name__} takes no cache under a name that is known")
    return found[0]


def _stays(
    spots: Sequence[Sequence[Any]], trace: Sequence[TraceEntry], length: int, device: torch.device
) -> dict[int, Tensor]:
    """By decoder layer, int64 ``[B, n]`` of what is still there: which of it goes on."""
    alive = torch.ones(len(spots), length, dtype=torch.bool)
    found: dict[int, Tensor] = {}
    order = sorted(trace, key=lambda entry: -1 if entry.layer is None else entry.layer)
    for entry in order:
        _check(entry)
        before = alive.clone()
        for row, (images, kept) in enumerate(zip(spots, entry.kept, strict=True)):
            for spot, own in zip(images, kept, strict=True):
                alive[row, spot.positions] = False
                alive[row, spot.positions[own.to(spot.positions.device)]] = True
        left = [own[there].nonzero()[:, 0] for own, there in zip(alive, before, strict=True)]
        if len({len(one) for one in left}) > 1:
            raise NoBare("the prompts of a batch keep different numbers of tokens")
        index, layer = torch.stack(left), entry.layer or 0
        if layer in found:  # chosen from what the one before left
            index = found[layer].gather(1, index.to(device))
        found[layer] = index.to(device)
    return found


def _check(entry: TraceEntry) -> None:
    if entry.place == "encoder":
        raise NoBare("tokens merge inside the vision tower")
    if entry.place == "attention":
        raise NoBare("attention is edited")
    if entry.mix is not None or entry.merged_into is not None:
        raise NoBare("tokens are merged")
    if entry.order is not None or entry.compact or entry.trim_cache:
        raise NoBare("positions are closed up, tokens are moved, or caches are trimmed")


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index [B, n]`` of ``values [..., B | 1, L, d]``; one row of them: the same for all."""
    if len(index) == 1:
        return values.index_select(-2, index[0])
    wide = values.expand(*values.shape[:-3], len(index), -1, -1)
    rows = index[..., None].expand(*wide.shape[:-2], -1, wide.shape[-1])
    return wide.gather(-2, rows)
