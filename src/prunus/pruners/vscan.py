"""VScan: local and global tokens of the vision tower, then a cut half-way through the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, between, check_keep
from prunus.method.signals import Attention, TowerAttention
from prunus.signals.pieces import best_of_pieces, piece_shares, pieces_of
from prunus.signals.similarity import unit
from prunus.signals.topk import first_best, rank_in
from prunus.signals.windows import window_counts, windows_of

_LOCAL = TowerAttention(0.22)  # of 23 or 24 blocks the 5th, of 32 the 7th
_KEPT = {192: (288, 96)}  # of 576, behind the tower and behind the cut; 128 and 64 alike


@dataclass(frozen=True)
class VScan(Method):
    """VScan (arXiv 2505.22654), in two stages.

    *Behind the projector*: half of the tokens that stay are local ones, with most attention from
    CLS in an early block of the tower, equally many in each window of the grid; the other half have
    most of it in the last block that is read (without a CLS token: most attention received there).
    What goes joins the most similar survivor, as their mean. *Half-way through the language
    model*: of these, the tokens that the last prompt token attends to in the layer that is about
    to run, as in PyramidDrop; positions are closed up.

    ``keep`` is the average over the layers, as in the paper: "64" keeps 96, and 32 from the middle
    on. ``stages="tower"`` is the first stage alone, at ``keep``.

    Windows are 4 x 4 of each tile and frame, which has its share of ``keep`` (6 x 6 tokens each of
    24 x 24); what is left at an edge joins the last one. The released code for LLaVA rounds the
    number in each window down, so that less than ``keep`` may stay; here, as in that for Qwen,
    windows take turns by falling attention, none more than its share rounded up.
    """

    name = "vscan"
    paper = "arXiv 2505.22654"
    summary = "local and global tokens of the tower, then a later cut"
    kind = "merge"
    presets = {
        **{str(keep): {"keep": keep} for keep in (192, 128, 64)},
        "tower": {"stages": "tower", "keep": 96},
    }

    keep: Keep = field(default=1 / 9, metadata={"help": "average tokens per layer, or share"})
    stages: Literal["both", "tower"] = field(
        default="both", metadata={"help": "both | the first alone, which keeps `keep`"}
    )
    layer: int | None = field(
        default=None, metadata={"help": "decoder layer of the second stage; default: half-way"}
    )
    windows: int = field(default=4, metadata={"help": "windows along a side of the grid"})
    positions: Literal["compact", "original"] = field(
        default="compact", metadata={"help": "of stage 2: compact, as published | original"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.windows < 1:
            raise PrunusError(f"windows={self.windows}: one or more along a side")

    def cuts(self, depth: int) -> Sequence[Cut]:
        first = Cut(None, (_LOCAL, TowerAttention()))
        if self.stages == "tower":
            return [first]
        layer = max(1, depth // 2) if self.layer is None else self.layer
        return [first, Cut(layer, (Attention(layer),), compact=self.positions == "compact")]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float]:
        if self.stages == "tower":
            return [keep or 0.0]
        kept = between(_KEPT, 576 * (keep or 0.0) / original, 576)
        return [count * original / 576 for count in kept]

    def score(self, stage: int, view: View) -> Tensor:
        return view[Attention(self.cuts(view.depth)[1].layer or 0)]

    def select(self, stage: int, view: View) -> Selection:
        if stage:
            return super().select(stage, view)
        there, scores = view.present.shape[1], view[TowerAttention()]
        count = min(view.count or 0, there)
        if count == there:
            return Selection(Selection.everything(view).kept, scores)
        counts = piece_shares(view.grid, view.present, count)
        piece = pieces_of(view.grid, view.present)
        local = self._local(view, torch.tensor(counts, device=piece.device), piece)
        first = scores.masked_fill(local, torch.inf)
        kept = best_of_pieces(first, view.grid, view.present, counts)
        rows = unit(view.states)
        alike = rows @ rows.gather(1, kept[..., None].expand(-1, -1, rows.shape[2])).transpose(1, 2)
        other = piece[..., None] != piece.gather(1, kept)[:, None]
        place = first_best(alike - 4.0 * other.to(alike))  # of its own tile, where any are left
        into = kept.gather(1, place).scatter(1, kept, kept)
        return Selection(kept, scores, into=into, macs=float(alike.numel() * rows.shape[2]))

    def _local(self, view: View, counts: Tensor, piece: Tensor) -> Tensor:
        """Bool ``[G, n]``: local tokens, half of the ``counts [G, P]`` of each of P pieces."""
        attention = view[_LOCAL]
        window = windows_of(view.grid, self.windows).to(piece.device)[view.present]
        each = torch.tensor(window_counts(view.grid, self.windows), device=piece.device)
        most = (counts + 2 * each - 1) // (2 * each)  # in a window, rounded up
        may = rank_in(attention, window) < most.gather(1, piece)
        rank = rank_in(attention.masked_fill(~may, -torch.inf), piece)
        return may & (rank < (counts // 2).gather(1, piece))

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return present * width * (3.0 * width + 1) if stage else 0.0  # projections again, one row
