"""DUET-VLM: a few contextual tokens beside dominant ones, then vision leaves in two steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, between, check_keep
from prunus.method.signals import (
    Attention,
    Features,
    Summary,
    TextMask,
    TowerAttention,
    TowerKeys,
)
from prunus.signals.contextual import contextual
from prunus.signals.similarity import unit
from prunus.signals.topk import stable_topk

#: Of 576 tokens, what each stage leaves, by average; the last is as far as vision can leave.
_KEPT = {64: (102, 51, 0), 128: (205, 102, 0), 192: (307, 153, 0), 360: (576, 288, 0)}


@dataclass(frozen=True)
class Duet(Method):
    """DUET-VLM, in two stages.

    *Between vision tower and projector*: CLS and the tokens that it attends to most (as
    :class:`~prunus.pruners.visionzip.VisionZip`: without CLS, those that receive most), and
    ``contextual`` others: of the four times as many that follow in that order, some at equal
    distances, each plus the mean of those whose keys are most like its own. All others go.
    *At one half and three quarters of the language model*: half of these stay by the attention of
    all text behind the image in the layer that is about to run; then none. Positions are closed up.

    ``keep`` is the average over the layers. 192 is 300 + 7 of 576 and 128 is 170 + 35, as
    published; 64 is ours (85 + 17). In between counts are interpolated, elsewhere they go on alike
    until all tokens enter (an average of 360); above that some reach the end (ours). Whether
    distances among the four times as many are by place or by attention is not said: by place. Rows
    of salient words alone need a tagger and are left out; checkpoints do not use them by default.
    """

    name = "duet"
    paper = "DUET-VLM"
    summary = "dominant and contextual tokens: half of them half-way on"
    kind = "merge"
    leaves = True
    presets = {
        "192": {"keep": 192, "contextual": 7},
        "128": {"keep": 128, "contextual": 35},
        "64": {"keep": 64, "contextual": 17},
    }

    keep: Keep = field(default=1 / 3, metadata={"help": "average tokens per layer, or share"})
    contextual: int | None = field(
        default=None, metadata={"help": "contextual tokens; default: 35 of 205 that enter"}
    )
    layers: tuple[int, ...] | None = field(
        default=None, metadata={"help": "the two decoder layers; default: 1/2 and 3/4 of them"}
    )
    cls: bool = field(default=True, metadata={"help": "keep CLS as a token where there is one"})
    order: Literal["original", "published"] = field(
        default="original", metadata={"help": "in which the language model reads them"}
    )
    positions: Literal["compact", "original"] = field(
        default="compact", metadata={"help": "of stage 2: compact, as published | original"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.contextual is not None and self.contextual < 0:
            raise PrunusError(f"contextual={self.contextual}: it cannot be negative")
        if self.layers is not None and len(self.layers) != 2:
            raise PrunusError(f"layers={self.layers}: name two")

    def cuts(self, depth: int) -> Sequence[Cut]:
        sees = (Features(), Summary(), TowerAttention(), TowerKeys(rotary=True))
        compact = self.positions == "compact"
        inside = [
            Cut(layer, (Attention(layer, "text"), TextMask()), compact=compact)
            for layer in self._layers(depth)
        ]
        return [Cut(None, sees, space="tower"), *inside]

    def _layers(self, depth: int) -> tuple[int, ...]:
        half = max(1, depth // 2)
        return (half, max(half + 1, 3 * depth // 4)) if self.layers is None else self.layers

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float]:
        *first, last = (
            count * original / 576 for count in between(_KEPT, 576 * (keep or 0.0) / original, 576)
        )
        return [*first, math.floor(last + 1e-6)]  # vision leaves as long as it is less than one

    def score(self, stage: int, view: View) -> Tensor:
        return view[Attention(self._layers(view.depth)[stage - 1], "text")]

    def select(self, stage: int, view: View) -> Selection:
        there = view.present.shape[1]
        count = min(view.count or 0, there)
        if stage and not count:
            return Selection(view.present[:, :0])
        if stage:
            width, words = view.states.shape[-1], view[TextMask()].shape[1]
            each = there * width * (3.0 * width + words)  # projections again, rows of logits
            return replace(super().select(stage, view), macs=len(view.present) * each)
        attention = view[TowerAttention()]
        if count == there:
            return Selection(Selection.everything(view).kept, attention)
        few = round(35 * count / 205) if self.contextual is None else self.contextual
        few = min(few, count - 1)
        cls = self.cls and view[Summary()] is not None and count > few
        own = count - few - cls
        ranked = torch.sort(attention, dim=1, descending=True, stable=True).indices
        pools = ranked[:, own : own + 4 * few].sort(1).values
        keys = unit(view[TowerKeys(rotary=True)])
        made = [
            contextual(best, pool, key, few, cls)
            for best, pool, key in zip(stable_topk(attention, own), pools, keys, strict=True)
        ]
        order = [line for _, _, line in made] if self.order == "published" else None
        kept, macs = torch.stack([one for one, _, _ in made]), 4.0 * few**2 * keys.shape[2]
        mix = [sums for _, sums, _ in made]
        return Selection(kept, attention, order=order, mix=mix, macs=len(keys) * macs)
