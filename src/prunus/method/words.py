"""The prompt that images stand in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method.question import QuestionMarks, question_mask


@dataclass(frozen=True)
class Words:
    """The prompt that each of ``G`` images stands in.

    Attributes:
        ids: int64 ``[G, L]``, token ids.
        prompt: bool ``[G, L]``, tokens up to the last one of the prompt: no padding, no answer.
        visual: bool ``[G, L]``, placeholders of visual tokens.
        embed: the model's word embeddings: int64 ``[...]`` to ``[..., D]``.
        marks: the model's chat template, where it is known; tokenizer: its tokenizer.
    """

    ids: Tensor
    prompt: Tensor
    visual: Tensor
    embed: Callable[[Tensor], Tensor]
    marks: QuestionMarks | None = None
    tokenizer: Any = None

    def question(self, marks: QuestionMarks | None = None) -> Tensor:
        """Bool ``[G, L]``: the user's last question, without the chat template's tokens; by
        ``marks`` instead of the model's own where they are given. Where neither is known: all text
        behind the last visual token.

        Raises:
            PrunusError: the prompt is not in the form of the chat template.
        """
        steps = torch.arange(self.ids.shape[1], device=self.ids.device)
        last = (self.prompt * steps).amax(1)
        return question_mask(self.ids, last, self.prompt, marks or self.marks, self.visual)

    def spoken(self, leaving_off: Sequence[str] = ()) -> list[str]:
        """The user's last question of each of the ``G`` prompts, as text, without what of
        ``leaving_off`` it ends with.

        Raises:
            PrunusError: the tokenizer is unknown, or as :meth:`question`.
        """
        if self.tokenizer is None:
            raise PrunusError(
                "a method reads the question as text, and nobody said what the model's tokenizer "
                "is: load the model with prunus.load, or give prunus.prune(..., processor=...)"
            )
        rows = zip(self.ids, self.question(), strict=True)
        texts = [self.tokenizer.decode(ids[own], skip_special_tokens=True) for ids, own in rows]
        return [_without(text.strip(), leaving_off) for text in texts]

    def outside(self) -> Tensor:
        """Bool ``[G, L]``: all text of the prompt, the chat template's too, without placeholders
        and (where the template is known) what it writes around them."""
        found = self.prompt & ~self.visual
        if self.marks is not None and self.marks.skip:
            found &= ~torch.isin(self.ids, torch.tensor(self.marks.skip, device=self.ids.device))
        return found


def embedded_texts(words: Words, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Word embeddings ``[G, T, D]`` of G texts, without signs of start and end, and bool ``[G,
    T]``, which of them are there; ``words`` know their :attr:`~Words.tokenizer`."""
    rows = [words.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids = torch.zeros(len(rows), max(1, *map(len, rows)), dtype=torch.long)
    valid = torch.zeros_like(ids, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        valid[number, : len(row)] = True
    return words.embed(ids.to(words.ids.device)), valid.to(words.ids.device)


def _without(text: str, endings: Sequence[str]) -> str:
    found = next((one for one in endings if text.endswith(one)), "")
    return text.removesuffix(found).strip()


def question_text(words: Words, marks: QuestionMarks | None = None) -> tuple[Tensor, Tensor]:
    """Word embeddings ``[G, L, D]`` of the question that each of G images is asked, and bool
    ``[G, L]``, which of them are there (questions differ in length)."""
    return _embedded(words, words.question(marks))


def mean_text(words: Words) -> Tensor:
    """Float32 ``[G, D]``: the mean word embedding of all text :meth:`~Words.outside` images; zeros
    where there is none. A longer prompt beside it in the batch changes no bit of it: sums of fp32
    would."""
    rows, valid = _embedded(words, words.outside())
    wide = torch.float32 if rows.device.type == "mps" else torch.float64  # mps has no float64
    there = valid[..., None].to(wide)
    return ((rows * there).sum(1) / there.sum(1).clamp_min(1)).float()


def _embedded(words: Words, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``[G, T, D]``, the words in ``mask``, and bool ``[G, T]``, which of them are there."""
    ids, valid = compact_text(words.ids[..., None], mask)
    return words.embed(ids[..., 0]), valid


def compact_text(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of ``embeds [B, S, D]`` that ``mask`` (bool ``[B, S]``) names, moved to the front:
    ``[B, L, D]`` and bool ``[B, L]``, L the longest question (at least 1)."""
    longest = max(int(mask.sum(1).max()), 1)
    index = torch.sort(mask.byte(), dim=1, descending=True, stable=True).indices[:, :longest]
    rows = embeds.gather(1, index[..., None].expand(-1, -1, embeds.shape[-1]))
    return rows, mask.gather(1, index)
