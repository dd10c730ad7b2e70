"""SCOPE: tokens that cover the image, weighted by what CLS attends to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Features, TowerAttention
from prunus.signals.coverage import greedy_cover
from prunus.signals.pieces import piece_shares, pieces_of
from prunus.signals.similarity import unit


@dataclass(frozen=True)
class Scope(Method):
    """SCOPE, before the language model, by features in front of the projector (where a family has
    them, else projected ones): greedily the tokens that add most to how well the image is covered.

    A token covers another one as far as they are alike (cosine, what is below 0 is nothing); what
    it adds to the best cover of each by those picked is summed, and multiplied by its attention
    from CLS in the last block that is read (without CLS: what it receives) to the power ``alpha``.
    Computed in fp32, ties by lower index. Published code can also add the two; that is left out.

    Every tile of a picture and every frame of a video is covered by itself, by its share of
    ``keep`` (published: 160 of five tiles); ``per="input"`` covers all of them together.
    """

    name = "scope"
    paper = "github.com/kinredon/SCOPE"
    summary = "greedy coverage of the image, weighted by CLS attention"
    presets = {str(keep): {"keep": keep} for keep in (192, 128, 64, 160)}

    keep: Keep = field(default=1 / 9, metadata={"help": "tokens per image, or share of them"})
    alpha: float = field(default=1.0, metadata={"help": "power of attention; 0: coverage alone"})
    per: Literal["tile", "input"] = field(
        default="tile", metadata={"help": "each tile and frame its share | covered together"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.alpha < 0:
            raise PrunusError(f"alpha={self.alpha}: it cannot be negative")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (Features(), TowerAttention()))]

    def select(self, stage: int, view: View) -> Selection:
        groups, there = view.present.shape
        count, attention = min(view.count or 0, there), view[TowerAttention()]
        if count == there:
            return Selection(Selection.everything(view).kept, attention)
        features, weight = unit(view[Features()]), attention**self.alpha
        if self.per == "input" or view.grid.pieces == 1:
            kept, macs = _covered(features, weight, count)
            return Selection(kept, attention, macs=macs)
        piece = pieces_of(view.grid, view.present)
        shares = piece_shares(view.grid, view.present, count)
        found, total = [], 0.0
        for image in range(groups):
            parts = []
            for number, share in enumerate(shares[image]):
                own = (piece[image] == number).nonzero().flatten()
                kept, macs = _covered(features[image, own][None], weight[image, own][None], share)
                parts.append(own[kept[0]])
                total += macs
            found.append(torch.cat(parts).sort().values)
        return Selection(torch.stack(found), attention, macs=total)


def _covered(features: Tensor, weight: Tensor, count: int) -> tuple[Tensor, float]:
    """Ascending int64 ``[G, count]`` of tokens with ``features [G, n, D]`` of length 1, and the
    multiply-accumulates that this took."""
    groups, size, width = features.shape
    alike = (features @ features.transpose(1, 2)).clamp_min_(0.0)
    kept = greedy_cover(alike, count, weight).sort(1).values
    return kept, float(groups * size * size * (width + count))
