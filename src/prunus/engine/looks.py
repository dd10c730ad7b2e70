"""What methods may look at while a prompt runs: states of earlier layers, one row of attention."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from prunus.engine.layout import Layout
from prunus.engine.prompt import Image
from prunus.families import Family
from prunus.grid import Grid
from prunus.signals.attention import last_row
from prunus.signals.influence import leave_one_out
from prunus.view import Influence, View, Words

Rope = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sight:
    """What a prompt was made of: token ids int64 ``[B, L]`` where they are known, which of them are
    there (bool ``[B, L]``), and the tower's features ``[N, D]`` of each image (before beams repeat
    them) where some method reads them."""

    ids: Tensor | None
    valid: Tensor
    features: list[Tensor] | None


class Looks:
    """Makes the views of one prompt, and keeps what they need no longer than they need it.

    Args:
        family: adapter of the model.
        last: int64 ``[B]``, logical position of the last prompt token of each row.
        noted: layers whose input states will be asked for, and the last layer at whose input.
    """

    def __init__(self, family: Family, last: Tensor, noted: Mapping[int, int]) -> None:
        self.cache: Cache | None = None
        self.sight: Sight | None = None
        self._family, self._last, self._noting = family, last, noted
        self._states: dict[int, tuple[Tensor, Layout, Rope]] = {}
        self._influences: dict[int, tuple[Tensor, Tensor, Tensor, Layout]] = {}

    def note(self, layer: int, states: Tensor, layout: Layout, rope: Rope) -> None:
        """``layer`` now runs on ``states`` in ``layout``: keep them if some method asked for them,
        and let go of those that none will ask for again."""
        for noted in [n for n in self._states if self._noting[n] <= layer]:
            del self._states[noted]
        self._influences.clear()
        if layer in self._noting:
            self._states[layer] = (states, layout, rope)

    def release(self) -> None:
        """Let go of everything."""
        self.cache, self.sight = None, None
        self._states.clear()
        self._influences.clear()

    def view(
        self,
        images: Sequence[Image],
        grid: Grid,
        states: Tensor,
        layout: Layout,
        samples: int,
        memo: dict[Any, Any],
    ) -> View:
        """The view of ``images``, which share ``grid`` and count, on the present ``states``."""
        present = torch.stack([image.present for image in images])
        positions = torch.stack([image.positions for image in images]).gather(1, present)
        rows = torch.tensor([image.row for image in images], device=positions.device)[:, None]

        def pick(values: Tensor, layout: Layout) -> Tensor:
            slots = layout.slot[rows, positions].to(values.device)
            return values[rows.to(values.device), slots]

        def snapshot(layer: int) -> Tensor:
            values, layout, _ = self._noted(layer)
            return pick(values, layout)

        def attention(layer: int) -> Tensor:
            query, key, visible, layout = self._row(layer)
            values = last_row(query, key, visible, self._family.scaling(layer))
            return pick(values, layout)

        def influence(layer: int) -> Influence:
            cosine, change, output, layout = self._influence(layer)
            one = rows[:, 0].to(output.device)
            return Influence(pick(cosine, layout), pick(change, layout), output[one])

        def value_norm(layer: int) -> Tensor:
            value, (_, layout, _) = self._value(layer), self._noted(layer)
            heads = self._family.text_config.num_attention_heads // value.shape[1]
            return pick(heads * value.float().abs().sum((1, 3)), layout)

        def features() -> Tensor:
            sight = self.sight
            if sight is None or not self._family.reads_tower:
                return pick(states, layout)
            if sight.features is None:
                raise ValueError(
                    "visual features were not kept: the method must say reads_features, and look "
                    "at them before the language model"
                )
            own = torch.stack([sight.features[image.order] for image in images])
            at = present.to(own.device)[..., None].expand(-1, -1, own.shape[-1])
            return own.gather(1, at)

        return View(
            grid=grid,
            present=present,
            owners=[(image.sample, image.image) for image in images],
            samples=samples,
            depth=len(self._family.layers),
            memo=memo,
            _states=functools.cache(lambda: pick(states, layout)),
            _snapshot=snapshot,
            _attention=attention,
            _influence=influence,
            _value_norm=value_norm,
            _features=functools.cache(features),
            _words=lambda: self._words(rows[:, 0]),
        )

    def _words(self, rows: Tensor) -> Words:
        """The prompt around images in ``rows``, int64 ``[G]``."""
        sight = self.sight
        if sight is None or sight.ids is None:
            raise ValueError(
                "the question of this prompt is unknown: call the model with input_ids (a learned "
                "selector needs the words, inputs_embeds do not tell them)"
            )
        ids = sight.ids[rows.to(sight.ids.device)]
        steps = torch.arange(ids.shape[1], device=ids.device)
        prompt = sight.valid.to(ids.device)[rows] & (steps <= self._last.to(ids.device)[rows, None])
        holders = self._family.placeholders(ids, None).values()
        visual = torch.stack(list(holders)).any(0)
        return Words(ids, prompt, visual, self._family.top.get_input_embeddings())

    def _noted(self, layer: int) -> tuple[Tensor, Layout, Rope]:
        if layer not in self._states:
            raise ValueError(
                f"states entering layer {layer} were not kept: name the layer in the Cut "
                "(snapshots or attention) of the method"
            )
        return self._states[layer]

    def _row(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Layout]:
        """Query ``[B, H, 1, d]`` of the last prompt token in ``layer``, all keys
        ``[B, H_kv, S, d]``, which of them it may see (bool ``[B, S]``), and the layout of the S
        slots."""
        states, layout, rope = self._noted(layer)
        batch, device = states.shape[0], states.device
        rows = torch.arange(batch, device=self._last.device)
        slots = layout.slot[rows, self._last].to(device)
        one = states[rows.to(device), slots][:, None]
        cos, sin = (table.expand(batch, -1, -1) for table in rope)
        at = slots.to(cos.device)[:, None, None].expand(-1, 1, cos.shape[-1])
        query = self._family.query(layer, one, (cos.gather(1, at), sin.gather(1, at)))
        cached = self._cached(layer)
        # Without a cache (training) the keys are computed once more for this layer.
        key = self._family.key(layer, states, rope) if cached is None else cached.keys
        visible = layout.index.to(device) <= self._last.to(device)[:, None]
        if layout.valid is not None:
            visible = visible & layout.valid.to(device)
        return query, key, visible, layout

    def _value(self, layer: int) -> Tensor:
        """Values ``[B, H_kv, S, d]`` of all tokens in ``layer``."""
        states, _, _ = self._noted(layer)
        cached = self._cached(layer)
        value: Tensor = self._family.value(layer, states) if cached is None else cached.values
        return value

    def _cached(self, layer: int) -> Any:
        """The cache of a layer that has run, or None where there is no cache."""
        if self.cache is None or layer >= len(self.cache.layers):
            return None
        cached = self.cache.layers[layer]
        return None if cached.keys is None else cached

    def _influence(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Layout]:
        """Cosine and change ``[B, S]``, norm of the output ``[B]``, layout of the S slots; the same
        for all views of a stage."""
        if layer not in self._influences:
            query, key, visible, layout = self._row(layer)
            scaling = self._family.scaling(layer)
            found = leave_one_out(query, key, self._value(layer), visible, scaling)
            self._influences[layer] = (*found, layout)
        return self._influences[layer]
