"""What methods may look at while a prompt runs: states of earlier layers, one row of attention."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.engine.attention import Given, check, is_proved, rows_at
from prunus.engine.layout import Layout
from prunus.engine.prompt import Image
from prunus.errors import PrunusError
from prunus.families import Family
from prunus.grid import AnyGrid
from prunus.method.view import Influence, View, Words
from prunus.signals.attention import last_row
from prunus.signals.influence import leave_one_out


@dataclass(frozen=True)
class Sight:
    """What a prompt was made of: token ids int64 ``[B, L]`` where they are known, which of them are
    there (bool ``[B, L]``), and the tower's features ``[N, D]`` of each image (before beams repeat
    them) where some method reads them."""

    ids: Tensor | None
    valid: Tensor
    features: list[Tensor] | None


@dataclass(frozen=True)
class Look:
    """One row of a layer's attention, that of the last prompt token, by what the model's attention
    function was given while the prompt ran.

    Attributes:
        query: ``[B, H, 1, d]``; key, value: ``[B, H_kv, S, d]``; visible, scaling, softcap, sinks:
            as in :func:`prunus.signals.attention.row_weights`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    visible: Tensor
    scaling: float
    softcap: float | None
    sinks: Tensor | None

    @classmethod
    def of(cls, given: Given, at: Tensor) -> Look:
        """The row in the slots ``at`` (int64 ``[B]``)."""
        index = at.to(given.query.device)[:, None]
        visible, softcap, sinks = given.rules(index)
        query = rows_at(given.query, index)
        return cls(query, given.key, given.value, visible, given.scaling, softcap, sinks)

    @property
    def _rules(self) -> tuple[Tensor, float, float | None, Tensor | None]:
        return self.visible, self.scaling, self.softcap, self.sinks

    def attention(self) -> Tensor:
        """Float32 ``[B, S]``: weights, mean over heads."""
        return last_row(self.query, self.key, *self._rules)

    def influence(self) -> tuple[Tensor, Tensor, Tensor]:
        """Cosine and change ``[B, S]``, and norm of the output ``[B]``."""
        return leave_one_out(self.query, self.key, self.value, *self._rules)

    def value_norm(self) -> Tensor:
        """Float32 ``[B, S]``: L1 norm of the values, summed over all query heads."""
        heads = self.query.shape[1] // self.value.shape[1]
        return heads * self.value.float().abs().sum((1, 3))


class Looks:
    """Makes the views of one prompt, and keeps what they need no longer than they need it.

    Args:
        family: adapter of the model.
        last: int64 ``[B]``, logical position of the last prompt token of each row.
        noted: layers whose input states or attention will be asked for, and the last layer at whose
            input.
    """

    def __init__(self, family: Family, last: Tensor, noted: Mapping[int, int]) -> None:
        self.sight: Sight | None = None
        self._family, self._last, self._noting = family, last, noted
        self._kept: dict[int, tuple[Tensor, Layout, Look | None]] = {}
        self._influences: dict[int, tuple[Tensor, Tensor, Tensor, Layout]] = {}

    def note(self, layer: int, states: Tensor, layout: Layout) -> None:
        """``layer`` now runs on ``states`` in ``layout``: keep them if some method asked for them,
        and let go of those that none will ask for again."""
        for noted in [n for n in self._kept if self._noting[n] <= layer]:
            del self._kept[noted]
        self._influences.clear()
        if layer in self._noting:
            self._kept[layer] = (states, layout, None)

    def see(self, layer: int, given: Given, output: Tensor) -> None:
        """The attention of ``layer`` was ``given`` this and gave ``output [B, Q, H, d_v]``.

        Raises:
            PrunusError: its rules are not known, or it attends more than once.
        """
        states, layout, look = self._noted(layer)
        if look is not None:
            raise PrunusError(
                f"decoder layer {layer} calls its attention function several times: choose a "
                "method (or variant) that looks at no attention"
            )
        at = layout.slots_of(self._last)
        if not is_proved(given):
            check(given, at, output)
        self._kept[layer] = (states, layout, Look.of(given, at))

    def release(self) -> None:
        """Let go of everything."""
        self.sight = None
        self._kept.clear()
        self._influences.clear()

    def view(
        self,
        images: Sequence[Image],
        grid: AnyGrid,
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
            look, layout = self._look(layer)
            return pick(look.attention(), layout)

        def influence(layer: int) -> Influence:
            cosine, change, output, layout = self._influence(layer)
            one = rows[:, 0].to(output.device)
            return Influence(pick(cosine, layout), pick(change, layout), output[one])

        def value_norm(layer: int) -> Tensor:
            look, layout = self._look(layer)
            return pick(look.value_norm(), layout)

        def features() -> Tensor:
            sight = self.sight
            if sight is None or not self._family.reads_tower:
                return pick(states, layout)
            if sight.features is None:
                raise PrunusError(
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
            raise PrunusError(
                "the question of this prompt is unknown: call the model with input_ids (a learned "
                "selector needs the words, inputs_embeds do not tell them)"
            )
        ids = sight.ids[rows.to(sight.ids.device)]
        steps = torch.arange(ids.shape[1], device=ids.device)
        prompt = sight.valid.to(ids.device)[rows] & (steps <= self._last.to(ids.device)[rows, None])
        holders = self._family.placeholders(ids, None).values()
        visual = torch.stack(list(holders)).any(0)
        return Words(ids, prompt, visual, self._family.top.get_input_embeddings())

    def _noted(self, layer: int) -> tuple[Tensor, Layout, Look | None]:
        if layer not in self._kept:
            raise PrunusError(
                f"states entering layer {layer} were not kept: name the layer in the Cut "
                "(snapshots or attention) of the method"
            )
        return self._kept[layer]

    def _look(self, layer: int) -> tuple[Look, Layout]:
        _, layout, look = self._noted(layer)
        if look is None:
            raise PrunusError(
                f"the attention of decoder layer {layer} cannot be looked at: the layer does not "
                "go through transformers' attention functions, or the method did not name it in "
                "Cut(attention=...); choose a method (or variant) that needs no attention"
            )
        return look, layout

    def _influence(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Layout]:
        """Cosine and change ``[B, S]``, norm of the output ``[B]``, layout of the S slots; the same
        for all views of a stage."""
        if layer not in self._influences:
            look, layout = self._look(layer)
            self._influences[layer] = (*look.influence(), layout)
        return self._influences[layer]
