"""VisionZip: tokens that CLS attends to, and the rest of the image in a few contextual ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Features, Summary, TowerAttention, TowerKeys
from prunus.signals.contextual import contextual, others_of
from prunus.signals.similarity import unit
from prunus.signals.topk import stable_topk


@dataclass(frozen=True)
class VisionZip(Method):
    """VisionZip (arXiv 2412.04467), between vision tower and projector.

    *Dominant* tokens are those with most attention from CLS in the last block that is read (where
    there is no CLS: with most attention received), and CLS itself (``summary``). Of the others,
    ``contextual`` targets at equal distances each become themselves plus the mean of those whose
    keys are most like theirs. Published: 162 + 30, 108 + 20, 54 + 10, so the default is
    ``round(10 K / 64)`` targets of K tokens.

    CLS has no cell: it takes the place of the first token that is dropped. Tokens are read in the
    order of their places; ``order="published"`` reads CLS, dominant, contextual. (Published code
    numbers what is left 0, 1, 2, ...: ``prune(..., positions="compact")``.)
    """

    name = "visionzip"
    paper = "arXiv 2412.04467 (CVPR 2025)"
    summary = "dominant by CLS attention, the rest merged into a few"
    kind = "merge"
    presets = {
        "192": {"keep": 192, "contextual": 30},
        "128": {"keep": 128, "contextual": 20},
        "64": {"keep": 64, "contextual": 10},
    }

    keep: Keep = field(default=1 / 3, metadata={"help": "tokens per image, or share of them"})
    contextual: int | None = field(
        default=None, metadata={"help": "how many of them are contextual; default: 10 of 64"}
    )
    cls: bool = field(default=True, metadata={"help": "keep CLS as a token where there is one"})
    order: Literal["original", "published"] = field(
        default="original", metadata={"help": "in which the language model reads them"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.contextual is not None and self.contextual < 0:
            raise PrunusError(f"contextual={self.contextual}: it cannot be negative")

    def cuts(self, depth: int) -> Sequence[Cut]:
        sees = (Features(), Summary(), TowerAttention(), TowerKeys(rotary=True))
        return [Cut(None, sees, space="tower")]

    def select(self, stage: int, view: View) -> Selection:
        there = view.present.shape[1]
        count = min(view.count or 0, there)
        attention = view[TowerAttention()]
        if count == there:
            return Selection(Selection.everything(view).kept, attention)
        few = round(10 * count / 64) if self.contextual is None else self.contextual
        few = min(few, count - 1)
        cls = self.cls and view[Summary()] is not None and count > few
        dominant = stable_topk(attention, count - few - cls)
        keys = unit(view[TowerKeys(rotary=True)])
        made = [
            contextual(own, others_of(own, there), keys[g], few, cls)
            for g, own in enumerate(dominant)
        ]
        order = [own for _, _, own in made] if self.order == "published" else None
        kept = torch.stack([own for own, _, _ in made])
        return Selection(kept, attention, order=order, mix=[mix for _, mix, _ in made])

    def macs(self, stage: int, grid: object, present: int, width: int) -> float:
        return float(present * width)  # at most: keys of one head's width, few targets
