"""What a method with a learned selector does, whatever the selector is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from prunus.errors import PrunusError, PrunusStateError
from prunus.method import Cut, Method, Selection, View
from prunus.method.signals import Features, Question
from prunus.method.view import Facts
from prunus.method.words import question_text
from prunus.selector.config import Kind, SelectorConfig
from prunus.selector.cost import selector_macs
from prunus.selector.pointer import Picks
from prunus.selector.selector import Selector
from prunus.selector.store import Card, find_selector, load_selector, shipped

M = TypeVar("M", bound="Learned")


class Loaded(NamedTuple):
    """A selector in memory."""

    selector: Selector
    card: Card

    def __repr__(self) -> str:
        return f"<a {self.selector.config.kind} selector in memory>"


@dataclass(frozen=True)
class Learned(Method):
    """Base of the methods with a ``selector``: None for the one of that kind that ships for the
    model, the name of another that ships, a folder, or one in memory, which must fit the model.

    They choose once, before the language model, among all tokens of an image that are there, from
    their features and the question. Without ``question`` the encoder runs on the image's tokens
    alone, as on a question of no words, so that the choice is the same for every question: no paper
    has that, and no selector that ships was trained so.
    """

    kind_of_selector: ClassVar[Kind]

    selector: str | Path | Loaded | None = None
    question: bool = field(
        default=True, metadata={"help": "false: the selector sees the image alone"}
    )

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (Features(), Question()) if self.question else (Features(),))]

    def with_selector(self: M, selector: Selector, card: Card) -> M:
        """The method with a selector in memory."""
        return replace(self, selector=Loaded(selector, card))

    @property
    def loaded(self) -> Loaded | None:
        """Selector and card, once they are in memory."""
        return self.selector if isinstance(self.selector, Loaded) else None

    def bind(self, model: Facts) -> Method:
        if self.loaded is not None:
            selector, card = self.loaded
        elif self.selector is None or str(self.selector) in shipped():
            selector, card = find_selector(str(self.selector or self.kind_of_selector), model)
        else:
            selector, card = load_selector(str(self.selector), model)
        if selector.config.kind != self.kind_of_selector:
            raise PrunusError(
                f"{self.name} needs a {self.kind_of_selector} selector, but this one is "
                f"{selector.config.kind}: use the method {selector.config.kind!r}"
            )
        return self.with_selector(selector, card)

    def picks(
        self, view: View, keep: Sequence[int] | None, bias: float
    ) -> tuple[Picks, SelectorConfig, int]:
        """What the selector picks of each image of ``view``, its configuration, and the words of
        the longest question."""
        if self.loaded is None:
            raise PrunusStateError("the method was not fitted to a model: use it in prunus.prune")
        selector, card = self.loaded
        features = view[Features()]
        if self.question:
            text, valid = question_text(view[Question()], card.marks)
        else:
            text = features.new_zeros(len(features), 0, selector.config.text_width)
            valid = text.new_zeros(text.shape[:2], dtype=torch.bool)
        selector.to(features.device)
        there = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        encoded = selector.encode(
            features, there, text.to(features.device), valid.to(features.device)
        )
        most = [selector.config.most(features.shape[1])] * len(features)
        return selector.pick(encoded, there, most, keep, bias), selector.config, text.shape[1]

    def chosen(
        self, view: View, keep: Sequence[int] | None, bias: float = 0.0, ordered: bool = False
    ) -> Selection:
        """The selection of :meth:`picks`, with its cost."""
        picks, config, words = self.picks(view, keep, bias)
        counts = picks.counts.tolist() if keep is None else list(keep)
        order = [own[:count] for own, count in zip(picks.order, counts, strict=True)]
        there = view.present.shape[1]
        most = config.most(there)
        steps = counts if keep is not None else [min(count + 1, most) for count in counts]
        macs = sum(selector_macs(config, there, words, own) for own in steps)
        kept: list[Tensor] = [own.sort().values for own in order]
        return Selection(kept, picks.scores, order=order if ordered else None, macs=macs)
