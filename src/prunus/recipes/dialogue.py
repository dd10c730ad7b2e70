"""Packs many questions about one image behind a single copy of its visual tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from prunus.tasks.questions import Question
from prunus.tasks.words import build_tokenizer

#: Tokens before the visual ones: ``<s> USER:``.
HEAD = 2
IGNORE = -100


class Style:
    """How a model's prompts are written, and with which tokenizer.

    ``head`` is the number of positions that the shared prefix takes besides the image's own.
    ``prompt`` holds ``{}`` for the question, ``again`` is what begins a further turn.
    """

    def __init__(
        self,
        build: Callable[[], PreTrainedTokenizerFast],
        head: int,
        prompt: str,
        again: str,
        end: str,
    ) -> None:
        self.head, self._prompt, self._again, self._end = head, prompt, again, end
        self._build = build
        self._tokenizer: PreTrainedTokenizerFast | None = None
        self._known: dict[str, tuple[int, ...]] = {}

    def prompt(self, question: str, first: bool) -> tuple[int, ...]:
        """Token ids from behind the image up to where the answer begins."""
        return self.encode(("" if first else self._again) + self._prompt.format(question))

    def answer(self, answer: str) -> tuple[int, ...]:
        """Token ids of an answer and its end."""
        return self.encode(answer + self._end)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of dialogue, without a start token."""
        if text not in self._known:
            if self._tokenizer is None:
                self._tokenizer = self._build()
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            if len(self._known) > 200_000:
                self._known.clear()
            self._known[text] = tuple(ids)
        return self._known[text]


LLAVA = Style(build_tokenizer, HEAD, "{} ASSISTANT:", "USER: ", "</s>")


@dataclass
class Packed:
    """Text of a batch, padded on the right to ``t`` tokens.

    Dialogues of one image do not see each other: a token sees all visual tokens and earlier
    tokens of its own dialogue (``dialogue`` number; -1 is padding).
    """

    ids: Tensor  # (b, t) int64
    positions: Tensor  # (b, t) int64, as if each dialogue followed the image alone
    dialogue: Tensor  # (b, t) int64
    labels: Tensor  # (b, t) int64, the token that should come next, or IGNORE
    question: Tensor  # (b, t) int64, running number of the question that a label belongs to
    types: list[str]  # type of each running number

    def to(self, device: str) -> Packed:
        """The same batch on another device."""
        return Packed(
            self.ids.to(device),
            self.positions.to(device),
            self.dialogue.to(device),
            self.labels.to(device),
            self.question.to(device),
            self.types,
        )

    def visible(self, visual: int) -> Tensor:
        """``(b, 1, t, visual + t)`` bool: what each text token may attend to."""
        length = self.ids.shape[1]
        same = self.dialogue[:, :, None] == self.dialogue[:, None, :]
        same = same & torch.ones(length, length, dtype=torch.bool, device=same.device).tril()
        image = torch.ones(1, length, visual, dtype=torch.bool, device=same.device)
        return torch.cat([image.expand(len(same), -1, -1), same], dim=2)[:, None]


def pack(
    batch: Sequence[Sequence[Question]],
    visual: int,
    rng: np.random.Generator,
    turns: int = 3,
    style: Style = LLAVA,
) -> Packed:
    """Pack the questions of each image, grouped at random into dialogues of 1 to ``turns``.

    ``visual`` is how many positions the image takes (LLaVA: its visual tokens; M-RoPE: the longer
    side of its grid): text follows behind them.
    Two thirds of the questions stand alone.
    """
    rows: list[dict[str, list[int]]] = []
    types: list[str] = []
    for questions in batch:
        row: dict[str, list[int]] = {k: [] for k in ("ids", "pos", "dialogue", "labels", "number")}
        left, dialogue, at = 0, -1, 0
        for question in questions:
            first = left == 0
            if first:
                left = int(rng.integers(2, turns + 1)) if turns > 1 and rng.random() < 0.2 else 1
                dialogue, at = dialogue + 1, style.head + visual
            left -= 1
            prompt = style.prompt(question.text, first)
            answer = style.answer(question.answer)
            ids = [*prompt, *answer]
            row["ids"] += ids
            row["pos"] += range(at, at + len(ids))
            row["dialogue"] += [dialogue] * len(ids)
            row["labels"] += [*[IGNORE] * (len(prompt) - 1), *answer, IGNORE]
            row["number"] += [len(types)] * len(ids)
            types.append(question.type)
            at += len(ids)
        rows.append(row)
    longest = max(len(row["ids"]) for row in rows)

    def stack(name: str, fill: int) -> Tensor:
        return torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in rows])

    return Packed(
        stack("ids", 0),
        stack("pos", style.head + visual),
        stack("dialogue", -1),
        stack("labels", IGNORE),
        stack("number", 0),
        types,
    )
