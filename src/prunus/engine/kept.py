"""What methods look at while a prompt runs: what layers were given, kept no longer than needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from prunus.method.words import Words
from prunus.signals.attention import last_row, row_weights
from prunus.signals.influence import Influence, leave_one_out


@dataclass(frozen=True)
class Sight:
    """What a prompt was made of: token ids int64 ``[B, L]`` where they are known, which of them are
    there and which are placeholders (bool ``[B, L]``), and the model's chat template and tokenizer,
    where these are known."""

    ids: Tensor | None
    valid: Tensor
    visual: Tensor
    marks: QuestionMarks | None
    tokenizer: Any = None


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
        self.ids: Tensor | None = None  # position ids [..., B|1, L]; None: 0, 1, ...
        self.tower: TowerSeen | None = None
        self.images: Sequence[Image] = ()
        self.family, self.last = family, last
        self._noting, self._whole = noted, whole
        self._kept: dict[int, Kept] = {}
        # Of groups of images (by id), whatever is left of them: their rows of the batch, where the
        # text behind them lies, and of which rows of attention each of them has some.
        self.batches: dict[tuple[int, ...], Tensor] = {}
        self.texts: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        self.asked: set[tuple[str, tuple[int, ...]]] = set()

    def note(self, layer: int, states: Tensor, layout: Layout) -> None:
        """``layer`` now runs on ``states`` in ``layout``: keep them if some method asked for them,
        and let go of those that none will ask for again."""
        if self._kept:
            for noted in [n for n in self._kept if self._noting[n] <= layer]:
                del self._kept[noted]
        if self._noting.get(layer, -1) > layer:
            self._kept[layer] = Kept(states, layout)

    def see(self, layer: int, given: Given, output: Tensor) -> None:
        """The attention of ``layer`` was ``given`` this and gave ``output [B, Q, H, d_v]``.

        Raises:
            PrunusError: its rules are not known, or it attends more than once.
        """
        kept = self.noted(layer)
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
        self.sight = self.tower = self.ids = None
        self._kept.clear()
        self.batches.clear()
        self.texts.clear()
        self.asked.clear()

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
        return Words(ids, prompt, visual, embed, sight.marks, sight.tokenizer)

    def noted(self, layer: int) -> Kept:
        """What was kept of ``layer``.

        Raises:
            PrunusError: nothing was.
        """
        if layer not in self._kept:
            raise PrunusError(
                f"states entering layer {layer} were not kept: name a signal of that layer in the "
                "Cut(sees=...) of the method"
            )
        return self._kept[layer]
