"""MMTok: tokens that cover the words of the question and the rest of the image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Features, Question
from prunus.method.words import embedded_texts, question_text
from prunus.signals.coverage import greedy_cover
from prunus.signals.similarity import unit

_SAYING_LITTLE = (
    "a an the this that these those it its there of in on at to for from with by as and or "
    "is are was were be been being am do does did has have had can could will would shall should "
    "may might must i you he she we they me him her us them my your his our their please"
)
#: Words of a question that say nothing of a picture ("english"). Which ones published code leaves
#: out is not known; words that ask (what, where, how many) stay.
STOP_WORDS = frozenset(_SAYING_LITTLE.split())


@dataclass(frozen=True)
class MMTok(Method):
    """MMTok, as its code has it, before the language model: greedily the tokens that best cover the
    words of the question and the image itself.

    A word is covered by a token as its softmax over the tokens of ``cos / text_temperature`` says
    (word embeddings and projected tokens), a token by another one by that of ``cos /
    image_temperature`` (features in front of the projector, where a family has them, else
    projected tokens); both are averaged, and the image counts ``weight``. Each step takes what adds
    most to the sum, over words and tokens, of the best cover.

    ``stop_words="english"`` takes a short list of our own (``STOP_WORDS``) out of the question, as
    published code does with one that is not known; it needs the model's tokenizer
    (``prunus.load``), so by default all words count. Published code leaves out patches that lie in
    the padding around a picture, of its own processor; those of transformers pad no square.
    """

    name = "mmtok"
    paper = "github.com/Ironieser/MMTok"
    summary = "greedy coverage of the question's words and of the image"
    presets = {
        "192": {"keep": 192, "stop_words": "english"},
        "128": {"keep": 128, "stop_words": "english"},
        "64": {"keep": 64, "stop_words": "english"},
        "qwen": {"keep": 0.2, "text_temperature": 0.01, "stop_words": "english"},
    }

    keep: Keep = field(default=1 / 9, metadata={"help": "tokens per image, or share of them"})
    text_temperature: float = field(default=0.02, metadata={"help": "of a word's cosines"})
    image_temperature: float = field(default=0.2, metadata={"help": "of a token's cosines"})
    weight: float = field(default=0.5, metadata={"help": "of the image beside the question"})
    stop_words: Literal["none", "english"] = field(
        default="none", metadata={"help": "words that are left out of the question"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        for name in ("text_temperature", "image_temperature"):
            if not getattr(self, name) >= 1e-3:
                raise PrunusError(f"{name}={getattr(self, name)}: give at least 0.001")
        if not self.weight >= 0:
            raise PrunusError(f"weight={self.weight}: it cannot be negative")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (Features(), Question()))]

    def select(self, stage: int, view: View) -> Selection:
        there = view.present.shape[1]
        count = min(view.count or 0, there)
        tokens, features = unit(view.states), unit(view[Features()])
        text, valid = self._words(view)
        text, valid = unit(text).to(tokens.device), valid.to(tokens.device)
        words = _share(text @ tokens.transpose(1, 2), self.text_temperature) * valid[..., None]
        words = words / valid.sum(1).clamp_min(1)[:, None, None]
        image = _share(features @ features.transpose(1, 2), self.image_temperature) / there
        cover = torch.cat([words, self.weight * image], 1)
        scores = cover.sum(1)
        if count == there:
            return Selection(Selection.everything(view).kept, scores)
        macs = float(words.numel() * tokens.shape[2] + image.numel() * features.shape[2])
        return Selection(greedy_cover(cover, count).sort(1).values, scores, macs=macs)

    def _words(self, view: View) -> tuple[Tensor, Tensor]:
        """``[G, T, D]``, word embeddings of the question, and bool ``[G, T]``, which are there."""
        words = view[Question()]
        if self.stop_words == "none":
            return question_text(words)
        return embedded_texts(words, [without_stop_words(text) for text in words.spoken()])


def without_stop_words(text: str) -> str:
    """``text`` without :data:`STOP_WORDS`; as it was if nothing else is in it."""
    rest = re.sub(r"[\w']+", lambda one: one[0] * (one[0].lower() not in STOP_WORDS), text)
    return " ".join(rest.split()) if re.search(r"\w", rest) else text


def _share(cosine: Tensor, temperature: float) -> Tensor:
    return (cosine / temperature).softmax(-1)
