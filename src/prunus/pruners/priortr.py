"""PriorTR: keep the tokens to which the question turns attention, against what was there before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Attention, TextMask
from prunus.signals.contrast import contrast


@dataclass(frozen=True)
class PriorTR(Method):
    """PriorTR (arXiv 2606.24156), as released: one cut at the input of ``layer``, by the attention
    of the layer before (mean over heads), as two distributions over the image's tokens. The prior Q
    is the row of the first token of text behind the image, which has seen the image and no question
    yet; P is the mean of the question's ``rows``. The score is ``P ln((P + eps) / (Q + eps))``.
    Positions stay; the tokens go from the caches of earlier layers as well.

    ``rows`` is what was released for each model: all text behind the image, Q's own row among it
    ("text": LLaVA-1.5 and InternVL), without the last token ("but-last": Qwen), or the last token
    alone ("last": LLaVA-NeXT). The released code rounds scores to half precision before it sorts
    them, and its paper has a larger ``eps`` (1e-6); here all is in fp32.

    PriorTR-2F takes Q from a second forward pass, of the prompt cut one token behind the image. In
    a causal decoder nothing up to that token sees what comes later, so that its row is the same in
    both passes, and so is the choice: ``priortr@2f`` is this setting, without the second pass. (The
    released "template" form, whose second prompt ends with a token that the first does not have at
    that place, is another row, and is left out.) Where an image or that token sees the text behind
    it (PaliGemma, images in Molmo 2), no row is free of the question, and the method is refused.
    """

    name = "priortr"
    paper = "arXiv 2606.24156 (ECCV 2026)"
    summary = "what the question attends to more than the row before did"
    presets = {
        "192": {"keep": 192},
        "128": {"keep": 128},
        "64": {"keep": 64},
        "2f": {},
        "llava-next": {"keep": 320, "rows": "last"},
        "qwen": {"keep": 1 / 3, "rows": "but-last"},
        "video-llava": {"keep": 194},
    }

    keep: Keep = field(default=1 / 3, metadata={"help": "tokens per image, or share of them"})
    layer: int = field(default=3, metadata={"help": "decoder layer at whose input tokens go"})
    rows: Literal["text", "but-last", "last"] = field(
        default="text", metadata={"help": "of the question: text | but-last | last"}
    )
    eps: float = field(default=1e-10, metadata={"help": "added to both shares; paper: 1e-6"})
    trim_cache: bool = field(
        default=True, metadata={"help": "take tokens out of earlier layers' caches as well"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.layer < 1:
            raise PrunusError(
                f"layer={self.layer}: some layer must have run before: give 1 or more"
            )
        if not self.eps > 0:
            raise PrunusError(f"eps={self.eps}: give a number above 0")

    @property
    def _question(self) -> Attention:
        if self.rows == "last":
            return Attention(self.layer - 1)
        return Attention(self.layer - 1, "text", each=self.rows == "but-last")

    @property
    def _prior(self) -> Attention:
        return Attention(self.layer - 1, "next")

    def cuts(self, depth: int) -> Sequence[Cut]:
        sees = (self._prior, self._question, TextMask())
        return [Cut(self.layer, sees, trim_cache=self.trim_cache)]

    def select(self, stage: int, view: View) -> Selection:
        prior, there = view[self._prior], view[TextMask()]
        question = view[self._question]
        if self.rows == "but-last":
            question = _but_last(question, there.to(question.device))
        chosen = self.rank(stage, view, contrast(question, prior, self.eps))
        rows = 2 if self.rows == "last" else 1 + there.shape[1]
        return replace(chosen, macs=float(prior.numel() * rows * view.states.shape[-1]))


def _but_last(rows: Tensor, there: Tensor) -> Tensor:
    """Float32 ``[G, n]``: the sum of ``rows [G, T, n]`` that are ``there`` (bool ``[G, T]``, first
    the true ones), without the last of them.

    Raises:
        PrunusError: there is but one.
    """
    count = there.sum(1, keepdim=True)
    if bool((count < 2).any()):
        raise PrunusError(
            "priortr: a single token of text stands behind an image, so that nothing is left "
            "without the last one: ask something behind the images, or give rows='text'"
        )
    own = torch.arange(there.shape[1], device=there.device) < count - 1
    return (rows * own[..., None]).sum(1)
