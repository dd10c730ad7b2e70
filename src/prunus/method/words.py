"""The prompt that images stand in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.method.question import QuestionMarks, question_mask


@dataclass(frozen=True)
class Words:
    """The prompt that each of ``G`` images stands in.

    Attributes:
        ids: int64 ``[G, L]``, token ids.
        prompt: bool ``[G, L]``, tokens up to the last one of the prompt: no padding, no answer.
        visual: bool ``[G, L]``, placeholders of visual tokens.
        embed: the model's word embeddings: int64 ``[...]`` to ``[..., D]``.
        marks: the model's chat template, where it is known.
    """

    ids: Tensor
    prompt: Tensor
    visual: Tensor
    embed: Callable[[Tensor], Tensor]
    marks: QuestionMarks | None = None

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


def question_text(words: Words, marks: QuestionMarks | None = None) -> tuple[Tensor, Tensor]:
    """Word embeddings ``[G, L, D]`` of the question that each of G images is asked, and bool
    ``[G, L]``, which of them are there (questions differ in length)."""
    ids, valid = compact_text(words.ids[..., None], words.question(marks))
    return words.embed(ids[..., 0]), valid


def compact_text(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of ``embeds [B, S, D]`` that ``mask`` (bool ``[B, S]``) names, moved to the front:
    ``[B, L, D]`` and bool ``[B, L]``, L the longest question (at least 1)."""
    longest = max(int(mask.sum(1).max()), 1)
    index = torch.sort(mask.byte(), dim=1, descending=True, stable=True).indices[:, :longest]
    rows = embeds.gather(1, index[..., None].expand(-1, -1, embeds.shape[-1]))
    return rows, mask.gather(1, index)
