"""CDPruner: tokens that are relevant to the question and unlike each other (conditional DPP)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from prunus.companion import Clip, load_clip
from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Embeddings, Question
from prunus.method.view import Facts
from prunus.method.words import mean_text
from prunus.signals.dpp import greedy_macs, greedy_map
from prunus.signals.similarity import unit

#: What benchmarks write behind a question, and CDPruner does not show to CLIP.
_SUFFIXES = (
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
)


@dataclass(frozen=True)
class CDPruner(Method):
    """CDPruner (arXiv 2506.10967), before the language model: greedily the subset of largest
    determinant of ``L_ij = (1 - w) S_ij + w r_i S_ij r_j``, S the cosines of projected tokens, r
    each token's relevance, from 0 to 1 over the tokens of one image (published code: over all
    images of a batch, so that a prompt chooses otherwise beside others). Where all are equally
    relevant, r is 1. K tokens of each image, all its tiles and frames together (published code: of
    each tile).

    Relevance:

    * With a ``companion``, the CLIP that the vision tower was taken from, as published: minus the
      mean cosine of a patch, ``visual_projection(post_layernorm(h))``, with the question, in parts
      of 77 tokens (the sign is right: in CLIP's space patches and text are opposed), w = 1.
      Benchmarks' "answer with a single word" is left off. Models whose features are not CLIP's,
      token by token, are refused.
    * Without, so that it works on every model: the cosine with the mean word embedding of all text
      outside images, w = 0.5. This is OpenVINO GenAI's relevance and *not* the published one: what
      is measured with it is ours.
    * ``cdpruner@openvino``, as there: so, in the two halves of an image's tokens by themselves,
      half of K from each. Its ``pruning_ratio`` 75 is ``keep=0.25``.
    """

    name = "cdpruner"
    paper = "arXiv 2506.10967 (NeurIPS 2025)"
    summary = "largest determinant: relevant to the question, not alike"
    presets = {
        "openvino": {"halves": True, "weight": 0.5},
        "128": {"keep": 128},
        "64": {"keep": 64},
        "32": {"keep": 32},
    }

    keep: Keep = field(default=1 / 9, metadata={"help": "tokens per image, or share of them"})
    companion: str | Path | Clip | None = field(
        default=None, metadata={"help": "CLIP (folder or id) that the vision tower is of"}
    )
    weight: float | None = field(
        default=None, metadata={"help": "w, of relevance; default: 1 with a companion, else 0.5"}
    )
    halves: bool = field(default=False, metadata={"help": "choose in each half of the tokens"})

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise PrunusError(f"weight={self.weight}: give a number from 0 to 1")

    def bind(self, model: Facts) -> CDPruner:
        if self.companion is None or isinstance(self.companion, Clip):
            return self
        return replace(self, companion=load_clip(self.companion, model))

    def cuts(self, depth: int) -> Sequence[Cut]:
        if not self._share:
            return [Cut(None)]
        return [Cut(None, (Question() if self.companion is None else self._embeddings,))]

    def select(self, stage: int, view: View) -> Selection:
        groups, there = view.present.shape
        count = min(view.count or 0, there)
        rows = unit(view.states)
        relevance, macs = self._relevance(view, rows)
        if count == there:
            return Selection(Selection.everything(view).kept, relevance)
        middle, few = (there // 2, count // 2) if self.halves else (0, 0)
        parts = [(slice(middle), few), (slice(middle, there), count - few)]
        kept = []
        for part, own in parts:
            order = greedy_map(self._kernel(rows[:, part], relevance[:, part]), own)
            kept.append(order + (part.start or 0))
            size = part.stop - (part.start or 0)
            macs += groups * (float(size * size * rows.shape[2]) + greedy_macs(size, own))
        return Selection(torch.cat(kept, 1).sort(1).values, relevance, macs=macs)

    @property
    def _share(self) -> float:
        default = 0.5 if self.companion is None else 1.0
        return default if self.weight is None else self.weight

    @property
    def _embeddings(self) -> Embeddings:
        return Embeddings(self.companion, _SUFFIXES)

    def _kernel(self, rows: Tensor, relevance: Tensor) -> Tensor:
        """Float32 ``[G, n, n]`` of the unit vectors ``rows`` and their relevance as it is."""
        similar, scaled = rows @ rows.transpose(1, 2), zero_to_one(relevance)
        similar.diagonal(dim1=1, dim2=2).round_()  # so that equal tokens are, to the last bit
        return similar * (1 - self._share + self._share * scaled[..., None] * scaled[:, None])

    def _relevance(self, view: View, rows: Tensor) -> tuple[Tensor, float]:
        """Float32 ``[G, n]``, and the multiply-accumulates that it took."""
        if not self._share:
            return torch.zeros_like(rows[..., 0]), 0.0
        if self.companion is None:
            text = unit(mean_text(view[Question()])[:, None]).to(rows.device)
            return (rows * text).sum(2), float(rows.numel())  # row by row, as if it were alone
        found = view[self._embeddings]
        cosine = unit(found.visual) @ unit(found.text).transpose(1, 2)
        there = found.there[:, None].float()
        mean = (cosine * there).sum(2) / there.sum(2)
        return -mean.to(rows.device), found.macs + float(cosine.numel() * found.text.shape[2])


def zero_to_one(values: Tensor) -> Tensor:
    """Float32 ``[G, n]`` from (nearly) 0 to 1 over each row; where all are equal, ones."""
    if not values.shape[1]:
        return values
    low, high = values.aminmax(dim=1, keepdim=True)
    span = high - low
    return torch.where(span > 1e-6, (values - low + 1e-6) / span.clamp_min(1e-6), 1.0)
