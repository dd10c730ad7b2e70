"""What methods look at while a prompt runs: what layers were given, kept no longer than needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prunus.engine.attention import Given, check, is_proved, rows_at
from prunus.engine.layout import Layout
from prunus.engine.prompt import Image
from prunus.engine.tower.seen import TowerSeen
from prunus.errors import PrunusError
from prunus.families import Family
from prunus.method.question import QuestionMarks
from prunus.method.signals import Of, Rows, Signal
from prunus.method.view import View
from prunus.method.words import Words
from prunus.signals.attention import last_row, row_weights
from prunus.signals.influence import Influence, leave_one_out


@dataclass(frozen=True)
class Sight:
    """What a prompt was made of: token ids int64 ``[B, L]`` where they are known, which of them are
    there (bool ``[B, L]``), and the model's chat template."""

    ids: Tensor | None
    valid: Tensor
    marks: QuestionMarks | None


@dataclass(frozen=True)
class Look:
    """One row of a layer's attention, that of the last prompt token, by what the model's attention
    function was given while the prompt ran.

    Attributes:
        query: ``[B, H, 1, d]``; key, value: ``[B, H_kv, S, d]``; visible, scaling, softcap, sinks:
            as in :func:`prunus.signals.attention.row_weights`.
        whole: all that was given, where a method looks at other rows.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    visible: Tensor
    scaling: float
    softcap: float | None
    sinks: Tensor | None
    whole: Given | None = None

    @classmethod
    def of(cls, given: Given, at: Tensor, whole: bool = False) -> Look:
        """The row in the slots ``at`` (int64 ``[B]``)."""
        index = at.to(given.query.device)[:, None]
        visible, softcap, sinks = given.rules(index)
        query = rows_at(given.query, index)
        kept = given if whole else None
        return cls(query, given.key, given.value, visible, given.scaling, softcap, sinks, kept)

    @property
    def _rules(self) -> tuple[Tensor, float, float | None, Tensor | None]:
        return self.visible, self.scaling, self.softcap, self.sinks

    def attention(self) -> Tensor:
        """Float32 ``[B, S]``: weights, mean over heads."""
        return last_row(self.query, self.key, *self._rules)

    def heads(self) -> Tensor:
        """Float32 ``[B, H, 1, S]``."""
        return row_weights(self.query, self.key, *self._rules)

    def influence(self) -> Influence:
        """Cosine and change ``[B, S]``, and norm of the output ``[B]``."""
        return Influence(*leave_one_out(self.query, self.key, self.value, *self._rules))


@dataclass
class Kept:
    """What is kept of one decoder layer: its input ``[B, S, D]`` in ``layout``, and a look at its
    attention with what was computed from it for all views alike."""

    states: Tensor
    layout: Layout
    look: Look | None = None
    row: Tensor | None = None
    left_out: Influence | None = None


class Looks:
    """Makes the views of one prompt, and keeps what they need no longer than they need it.

    Args:
        family: adapter of the model.
        last: int64 ``[B]``, logical position of the last prompt token of each row.
        noted: layers whose input states or attention will be asked for, and the last layer at whose
            input.
        whole: those of which all that their attention function is given will be.
    """

    def __init__(
        self,
        family: Family,
        last: Tensor,
        noted: Mapping[int, int],
        whole: frozenset[int] = frozenset(),
    ) -> None:
        self.sight: Sight | None = None
        self.tower: TowerSeen | None = None
        self.images: Sequence[Image] = ()
        self.family, self.last = family, last
        self._noting, self._whole = noted, whole
        self._kept: dict[int, Kept] = {}

    def note(self, layer: int, states: Tensor, layout: Layout) -> None:
        """``layer`` now runs on ``states`` in ``layout``: keep them if some method asked for them,
        and let go of those that none will ask for again."""
        for noted in [n for n in self._kept if self._noting[n] <= layer]:
            del self._kept[noted]
        if self._noting.get(layer, -1) > layer:
            self._kept[layer] = Kept(states, layout)

    def see(self, layer: int, given: Given, output: Tensor) -> None:
        """The attention of ``layer`` was ``given`` this and gave ``output [B, Q, H, d_v]``.

        Raises:
            PrunusError: its rules are not known, or it attends more than once.
        """
        kept = self._noted(layer)
        if kept.look is not None:
            raise PrunusError(
                f"decoder layer {layer} calls its attention function several times: choose a "
                "method (or variant) that looks at no attention"
            )
        at = kept.layout.slots_of(self.last)
        if not is_proved(given):
            check(given, at, output)
        kept.look = Look.of(given, at, layer in self._whole)

    def peek(self, layer: int, states: Tensor, layout: Layout, given: Given) -> None:
        """The attention function of ``layer``, which is about to run, would be ``given`` this."""
        if not is_proved(given):
            check(given, layout.slots_of(self.last), given.run()[0])
        look = Look.of(given, layout.slots_of(self.last), layer in self._whole)
        self._kept[layer] = Kept(states, layout, look)

    def release(self) -> None:
        """Let go of everything."""
        self.sight = self.tower = None
        self._kept.clear()

    def view(
        self,
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
        shown = Shown(self, images, Kept(states, layout))
        return View(
            grid=images[0].grid,
            present=shown.present,
            sizes=torch.stack([image.counted() for image in images]),
            count=count,
            owners=[(image.sample, image.image) for image in images],
            samples=samples,
            depth=len(self.family.layers),
            memo=memo,
            source=shown,
            sees=sees,
        )

    def words(self, rows: Tensor) -> Words:
        """The prompt around images in ``rows``, int64 ``[G]``."""
        sight = self.sight
        if sight is None or sight.ids is None:
            raise PrunusError(
                "the question of this prompt is unknown: call the model with input_ids (a method "
                "that reads the question needs the words, inputs_embeds do not tell them)"
            )
        ids = sight.ids[rows.to(sight.ids.device)]
        steps = torch.arange(ids.shape[1], device=ids.device)
        prompt = sight.valid.to(ids.device)[rows] & (steps <= self.last.to(ids.device)[rows, None])
        holders = self.family.placeholders(ids, None).values()
        visual = torch.stack(list(holders)).any(0)
        embed = self.family.top.get_input_embeddings()
        return Words(ids, prompt, visual, embed, sight.marks)

    def _noted(self, layer: int) -> Kept:
        if layer not in self._kept:
            raise PrunusError(
                f"states entering layer {layer} were not kept: name a signal of that layer in the "
                "Cut(sees=...) of the method"
            )
        return self._kept[layer]


class Shown:
    """Signals of one group of images (:class:`prunus.method.signals.Source`)."""

    def __init__(self, looks: Looks, images: Sequence[Image], here: Kept) -> None:
        self.looks, self.here, self.images = looks, here, images
        self.present = torch.stack([image.present for image in images])
        every = torch.stack([image.positions for image in images])
        self.positions = every.gather(1, self.present)
        self.batch = torch.tensor([i.row for i in images], device=every.device)[:, None]
        self._ends = every[:, -1:]
        self._text: tuple[Tensor, Tensor] | None = None

    def layer(self, number: int | None) -> ShownLayer:
        """See :class:`~prunus.method.signals.Source`."""
        return ShownLayer(self, self.here if number is None else self.looks._noted(number), number)

    def block(self, number: int | None) -> Any:
        """See :class:`~prunus.method.signals.Source`."""
        return self._tower().block(number, self.images)

    def features(self) -> Tensor:
        """See :class:`~prunus.method.signals.Source`."""
        if not self.looks.family.reads_tower:
            return self.layer(None).pick(self.here.states)
        return self._tower().features(self.images)

    def summary(self) -> Tensor | None:
        """See :class:`~prunus.method.signals.Source`."""
        return None if self.looks.tower is None else self.looks.tower.summary(self.images)

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

    def behind(self) -> tuple[Tensor, Tensor]:
        """Logical positions ``[G, T]`` of the prompt's text behind each image, and which are
        there."""
        if self._text is None:
            looks = self.looks
            valid = looks.sight.valid if looks.sight is not None else self.here.layout.present
            rows, last = self.batch[:, 0].to(valid.device), looks.last.to(valid.device)
            steps = torch.arange(valid.shape[1], device=valid.device)
            text = valid[rows] & (steps <= last[rows, None]) & (steps > self._ends.to(rows.device))
            for other in looks.images:
                text[rows == other.row] &= ~torch.isin(steps, other.positions)
            longest = max(1, int(text.sum(1).max()))
            order = torch.sort(text.byte(), dim=1, descending=True, stable=True).indices
            positions = order[:, :longest]
            self._text = positions, text.gather(1, positions)
        return self._text

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
        positions = self._shown.positions if of == "visual" else self._shown.behind()[0]
        rows = self._shown.batch.to(values.device)
        return values[rows, self._slots(positions).to(values.device)]

    def rows(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """See :class:`~prunus.method.signals.Layer`."""
        shown, look = self._shown, self._look()
        batch = shown.batch[:, 0].to(look.key.device)
        if rows == "last":
            weights = look.heads()[batch]
            valid = torch.ones(len(batch), 1, dtype=torch.bool, device=batch.device)
        else:
            positions = shown.positions if rows == "visual" else shown.behind()[0]
            if rows == "visual":
                valid = torch.ones_like(positions, dtype=torch.bool)
            else:
                valid = shown.text(rows == "question")
            weights = _of_rows(look.whole, batch).weights(self._slots(positions).to(batch.device))
        columns = self._slots(shown.positions).to(weights.device)[:, None, None]
        return weights.gather(3, columns.expand(*weights.shape[:3], -1)), valid.to(weights.device)

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

    def _slots(self, positions: Tensor) -> Tensor:
        return self._kept.layout.slot[self._shown.batch, positions]

    def _look(self) -> Look:
        if self._kept.look is None:
            raise PrunusError(
                f"the attention of decoder layer {self._number} cannot be looked at: the layer "
                "does not go through transformers' attention functions; choose a method (or "
                "variant) that needs no attention"
            )
        return self._kept.look


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
