"""What a method is shown: views of groups of images, and where their signals are read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prunus.cost.flops import decoder_layer_macs
from prunus.engine.ahead import first_layer
from prunus.engine.attention import HIDDEN, Given
from prunus.engine.kept import Kept, Look, Looks
from prunus.engine.layout import Layout
from prunus.engine.prompt import Image
from prunus.engine.rotary import angles
from prunus.engine.tower.seen import TowerSeen
from prunus.errors import PrunusError
from prunus.method.signals import Block, Of, Passed, Rows, Signal, Turns
from prunus.method.view import View
from prunus.method.words import Words
from prunus.signals.attention import ByHead, over_heads
from prunus.signals.influence import Influence

#: Weights of all heads that exist at a time where the mean of many rows is taken: what a CPU's
#: caches hold, and what keeps a GPU busy.
_CPU, _GPU = 2**20, 2**24


def view_of(
    looks: Looks,
    images: Sequence[Image],
    states: Tensor,
    layout: Layout,
    samples: int,
    memo: dict[Any, Any],
    count: int | None,
    sees: tuple[Signal[Any], ...],
) -> View:
    """The view of ``images``, which share grid and number of tokens, on the present
    ``states``."""
    shown = Shown(looks, images, Kept(states, layout))
    return View(
        grid=images[0].grid,
        present=shown.present,
        sizes=torch.stack([image.counted() for image in images]),
        count=count,
        owners=[(image.sample, image.image) for image in images],
        samples=samples,
        depth=looks.family.depth,
        memo=memo,
        source=shown,
        sees=sees,
    )


class Shown:
    """Signals of one group of images (:class:`prunus.method.signals.Source`).

    Attributes:
        macs: multiply-accumulates that reading them took beyond the model's own.
    """

    def __init__(self, looks: Looks, images: Sequence[Image], here: Kept) -> None:
        self.looks, self.here, self.images = looks, here, images
        self.present = torch.stack([image.present for image in images])
        every = torch.stack([image.positions for image in images])
        intact = self.present.shape == every.shape  # 0, 1, 2, ...
        self.positions = every if intact else every.gather(1, self.present)
        self._key = tuple(map(id, images))
        if self._key not in looks.batches:
            rows = torch.tensor([image.row for image in images], device=every.device)
            looks.batches[self._key] = rows[:, None]
        self.batch = looks.batches[self._key]
        self._starts, self._ends = every[:, :1], every[:, -1:]
        self.macs = 0.0
        self._prompt: tuple[Tensor, Tensor] | None = None

    def layer(self, number: int | None) -> ShownLayer:
        """See :class:`~prunus.method.signals.Source`."""
        return ShownLayer(self, self.here if number is None else self.looks.noted(number), number)

    def block(self, number: Block) -> Any:
        """See :class:`~prunus.method.signals.Source`."""
        return self._tower().block(number, self.images)

    def features(self) -> Tensor:
        """See :class:`~prunus.method.signals.Source`."""
        if not self.looks.family.reads_tower:
            return self.layer(None).pick(self.here.states)
        return self._tower().features(self.images)

    def summary(self) -> Tensor | None:
        """See :class:`~prunus.method.signals.Source`."""
        if self.looks.tower is None or not self.looks.family.reads_tower:
            return None  # beside projected tokens there is none
        return self.looks.tower.summary(self.images)

    def normed(self, states: Tensor) -> Tensor:
        """See :class:`~prunus.method.signals.Source`."""
        found: Tensor = self.looks.family.last_norm(states)
        return found

    def words(self) -> Words:
        """See :class:`~prunus.method.signals.Source`."""
        return self.looks.words(self.batch[:, 0])

    def text(self, question: bool) -> Tensor:
        """See :class:`~prunus.method.signals.Source`."""
        positions, valid = self.behind()
        if not question:
            return valid
        asked = self.words().question()
        return valid & asked.to(valid.device).gather(1, positions)

    def prompt(self) -> Tensor:
        """See :class:`~prunus.method.signals.Source`."""
        return self.all_of_it()[1]

    def ahead(self) -> Passed:
        """See :class:`~prunus.method.signals.Source`."""
        family, axes = self.looks.family, self._axes()
        batch, places = self.batch.to(axes.device), self.positions.to(axes.device)
        own = axes[:, batch, places] - axes[:, batch, self._starts.to(axes.device)]
        found = first_layer(family, self.layer(None).pick(self.here.states), own)
        try:
            layer = decoder_layer_macs(family.decoder_shape(family.config), places.shape[1])
        except PrunusError:  # then no cost of this model is counted, and reports say so
            return found
        self.macs += float(layer * len(places))
        return found

    def turns(self, layer: int, of: Of) -> Turns:
        """See :class:`~prunus.method.signals.Source`."""
        present, axes = self.here.layout.present, self._axes()
        axes = axes - axes.gather(2, present.byte().argmax(1).expand(len(axes), -1)[..., None])
        found = [one.permute(1, 2, 0, 3) for one in angles(self.looks.family, layer, axes)]
        places = self.places(of).to(present.device)
        return Turns(*(one[self.batch, places] for one in found))

    def _axes(self) -> Tensor:
        """Position ids int64 ``[A, B, L]`` of the prompt, a row for each axis."""
        layout, ids = self.here.layout, self.looks.ids
        present = layout.present
        if layout.closed:
            ids = present.long().cumsum(1)
        elif ids is None:
            ids = torch.arange(present.shape[1], device=present.device).expand_as(present)
        ids = ids.to(present.device)
        axes = ids[None] if ids.ndim == 2 else ids[-3:]  # a fourth counts the text
        return axes.expand(-1, len(present), -1)

    def places(self, of: Of) -> Tensor:
        """Logical positions int64 ``[G, n | T | P]`` of the tokens that a signal is of."""
        if of == "visual":
            return self.positions
        return (self.behind() if of == "text" else self.all_of_it())[0]

    def behind(self) -> tuple[Tensor, Tensor]:
        """Logical positions ``[G, T]`` of the prompt's text behind each image, and which are
        there."""
        if self._key not in self.looks.texts:
            there, steps, rows = self._there()
            text = there & (steps > self._ends.to(rows.device))
            cells = torch.zeros_like(self.here.layout.present)
            for other in self.looks.images:
                cells[other.row, other.positions] = True
            text &= ~cells.to(rows.device)[rows]
            if self.looks.sight is not None:  # CLS, newlines: placeholders that are no cells
                text &= ~self.looks.sight.visual.to(rows.device)[rows]
            self.looks.texts[self._key] = _packed(text)
        return self.looks.texts[self._key]

    def has(self, rows: Rows, valid: Tensor) -> bool:
        """Whether all images have some of ``rows``, those that are ``valid``."""
        if rows != "visual" and (rows, self._key) not in self.looks.asked:
            if not bool(valid.any(1).all()):
                return False
            self.looks.asked.add((rows, self._key))
        return True

    def all_of_it(self) -> tuple[Tensor, Tensor]:
        """Logical positions ``[G, P]`` of all tokens of each image's prompt, and which are there
        (still)."""
        if self._prompt is None:
            there, _, rows = self._there()
            self._prompt = _packed(there & self.here.layout.present.to(rows.device)[rows])
        return self._prompt

    def _there(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bool ``[G, L]``, the tokens of each image's prompt; int64 ``[L]`` and ``[G]``, their
        positions and the images' rows."""
        looks = self.looks
        valid = looks.sight.valid if looks.sight is not None else self.here.layout.present
        rows, last = self.batch[:, 0].to(valid.device), looks.last.to(valid.device)
        steps = torch.arange(valid.shape[1], device=valid.device)
        return valid[rows] & (steps <= last[rows, None]), steps, rows

    def _tower(self) -> TowerSeen:
        if self.looks.tower is None:
            raise PrunusError(
                "what the vision tower did was not kept: name the signal in Cut(sees=...)"
            )
        return self.looks.tower


class ShownLayer:
    """One decoder layer for one group of images (:class:`prunus.method.signals.Layer`)."""

    def __init__(self, shown: Shown, kept: Kept, number: int | None) -> None:
        self._shown, self._kept, self._number = shown, kept, number

    @property
    def states(self) -> Tensor:
        """See :class:`~prunus.method.signals.Layer`."""
        return self._kept.states

    @property
    def given(self) -> Any:
        """See :class:`~prunus.method.signals.Layer`."""
        look = self._look()
        return look if look.whole is None else look.whole

    def pick(self, values: Tensor, of: Of = "visual") -> Tensor:
        """See :class:`~prunus.method.signals.Layer`."""
        shown, positions = self._shown, self._shown.places(of)
        rows = shown.batch.to(values.device)
        return values[rows, self._slots(positions).to(values.device)]

    def rows(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """See :class:`~prunus.method.signals.Layer`."""
        if rows == "last":
            weights = self._visual(self._look().heads()[self._rows_of_batch()])
            return weights, weights.new_ones(len(weights), 1, dtype=torch.bool)
        given, slots, valid = self._asked(rows)
        return self._visual(given.weights(slots)), valid

    def mean(self, rows: Rows, heads: ByHead) -> Tensor:
        """See :class:`~prunus.method.signals.Layer`."""
        if rows == "last":
            return _joined(over_heads(self.rows(rows)[0], heads).squeeze(2), heads)
        given, slots, valid = self._asked(rows)
        if not self._shown.has(rows, valid):
            raise PrunusError(
                f"no text stands behind an image, so that decoder layer {self._number} has no row "
                f"{rows!r} to look at: put the question behind the images, or choose another method"
            )
        share = (valid.float() / valid.sum(1, keepdim=True))[:, None, :, None]
        several, heads_of = given.query.shape[:2]
        size = several * heads_of * given.key.shape[2]
        step = max(1, (_CPU if slots.device.type == "cpu" else _GPU) // size)
        total = None
        for start in range(0, slots.shape[1], step):
            some = slice(start, start + step)
            weights = over_heads(self._visual(given.weights(slots[:, some])), heads)
            part = (weights * share[:, :, some]).sum(2)
            total = part if total is None else total + part
        assert total is not None  # there is some row
        return _joined(total, heads)

    def last(self) -> Tensor:
        """See :class:`~prunus.method.signals.Layer`."""
        if self._kept.row is None:
            self._kept.row = self._look().attention()
        return self.pick(self._kept.row)

    def influence(self) -> Influence:
        """See :class:`~prunus.method.signals.Layer`."""
        if self._kept.left_out is None:
            self._kept.left_out = self._look().influence()
        own = self._kept.left_out
        one = self._shown.batch[:, 0].to(own.output.device)
        return Influence(self.pick(own.cosine), self.pick(own.change), own.output[one])

    def _asked(self, rows: Rows) -> tuple[Given, Tensor, Tensor]:
        """What the layer's attention was given for the G images, slots int64 ``[G, R]`` of the
        query ``rows``, and which of them are there."""
        shown = self._shown
        batch = self._rows_of_batch()
        given = _of_rows(self._look().whole, batch)
        if rows == "visual":
            positions = shown.positions
            valid = torch.ones_like(positions, dtype=torch.bool)
        else:
            positions, valid = shown.behind()[0], shown.text(rows == "question")
        slots = self._slots(positions).to(batch.device)
        if rows == "next":
            slots, valid = slots[:, :1], valid[:, :1]
            own = self._slots(shown.positions).to(batch.device)
            _check_blind(given, torch.cat([own, slots], 1), slots)
        return given, slots, valid.to(batch.device)

    def _visual(self, weights: Tensor) -> Tensor:
        """Of weights ``[G, H, R, S]`` those of the images' tokens: ``[G, H, R, n]``."""
        columns = self._slots(self._shown.positions).to(weights.device)[:, None, None]
        return weights.gather(3, columns.expand(*weights.shape[:3], -1))

    def _rows_of_batch(self) -> Tensor:
        """Int64 ``[G]``, where the layer ran."""
        return self._shown.batch[:, 0].to(self._look().key.device)

    def _slots(self, positions: Tensor) -> Tensor:
        layout = self._kept.layout
        return positions if layout.whole else layout.slot[self._shown.batch, positions]

    def _look(self) -> Look:
        if self._kept.look is None:
            raise PrunusError(
                f"the attention of decoder layer {self._number} cannot be looked at: the layer "
                "does not go through transformers' attention functions; choose a method (or "
                "variant) that needs no attention"
            )
        return self._kept.look


def _joined(weights: Tensor, heads: ByHead) -> Tensor:
    return weights if heads == "each" else weights.squeeze(1)


def _check_blind(given: Given, slots: Tensor, end: Tensor) -> None:
    """Raise PrunusError where queries in ``slots [G, R]`` see something behind ``end [G, 1]``: then
    they are not what they would be if the prompt ended there."""
    if not isinstance(given.mask, Tensor) and given.causal:
        return
    visible = given.rules(slots)[0]  # [G, 1|H, R, S]
    behind = torch.arange(visible.shape[-1], device=visible.device) > end.to(visible.device)
    if bool(((visible > HIDDEN / 2) & behind[:, None, None]).any()):
        raise PrunusError(
            "in this model an image, or the token next to it, sees what stands behind that token, "
            "so that no row of attention is free of the question: choose a method that does not "
            "compare the question with what was there before it"
        )


def _of_rows(given: Given | None, batch: Tensor) -> Given:
    """``given`` of the rows ``batch`` (int64 ``[G]``) of the batch."""
    if given is None:
        raise PrunusError("only the last prompt token's row of this layer was kept")

    def own(values: Any) -> Any:
        several = isinstance(values, Tensor) and values.ndim in (2, 4) and values.shape[0] > 1
        return values[batch.to(values.device)] if several else values

    rest = {
        name: own(value) if name == "position_bias" else value for name, value in given.rest.items()
    }
    query, key, value = (one[batch] for one in (given.query, given.key, given.value))
    return replace(given, query=query, key=key, value=value, mask=own(given.mask), rest=rest)


def _packed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Int64 ``[G, T]``, where ``mask`` (bool ``[G, L]``) is true, T of the fullest row (at least
    1), and bool ``[G, T]``, which of them are."""
    longest = max(1, int(mask.sum(1).max()))
    order = torch.sort(mask.byte(), dim=1, descending=True, stable=True).indices[:, :longest]
    return order, mask.gather(1, order)
