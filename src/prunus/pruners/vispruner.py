"""VisPruner: tokens that CLS attends to, and of the rest those that are unlike each other."""

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
from prunus.signals.alike import alike_pieces
from prunus.signals.diversity import thinned
from prunus.signals.similarity import unit
from prunus.signals.topk import places_of


@dataclass(frozen=True)
class VisPruner(Method):
    """VisPruner (arXiv 2412.01818, as FasterVLM, which it follows), before the language model. No
    relation of VisiPruner.

    A share ``important`` of the tokens that stay are those with most attention from CLS in the last
    block of the tower that is read (without CLS: with most attention received). The others are
    lined up by falling attention and lose, round by round, eight of every second one: those most
    like any of the rest, by the cosine of the features that enter the projector (where patches are
    joined in front of it: of projected tokens). As in the released code what stays goes on in the
    order of its similarity, so that the next round pairs otherwise; where that code fails, on lines
    of odd length, no more go than there are (ours).

    Each tile and frame keeps its share, chosen in it alone, as published for LLaVA-NeXT;
    ``per="input"`` chooses among all. Published: 192, 128, 64 with a half, also with 0.75.
    """

    name = "vispruner"
    paper = "arXiv 2412.01818 (ICCV 2025)"
    summary = "what CLS attends to, and of the rest what is diverse"
    presets = {
        "192": {"keep": 192},
        "128": {"keep": 128},
        "64": {"keep": 64},
        "64-important": {"keep": 64, "important": 0.75},
    }

    keep: Keep = field(default=2 / 9, metadata={"help": "tokens per image, or share of them"})
    important: float = field(
        default=0.5, metadata={"help": "share of these that go by attention alone, 0 to 1"}
    )
    per: Literal["tile", "input"] = field(
        default="tile", metadata={"help": "each tile and frame its share | chosen together"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if not 0 <= self.important <= 1:
            raise PrunusError(f"important={self.important}: give a share from 0 to 1")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (TowerAttention(), Features()))]

    def select(self, stage: int, view: View) -> Selection:
        attention = self.checked(stage, view, view[TowerAttention()])
        count = min(view.count or 0, view.present.shape[1])
        chosen, macs = torch.zeros_like(view.present, dtype=torch.bool), 0.0
        for own in alike_pieces(view.grid, view.present, count, self.per == "tile"):
            rows = unit(own.pick(view[Features()]))
            own.mark(chosen, self._chosen(own.pick(attention), rows, own.count))
            macs += float(rows.numel() * rows.shape[1])
        return Selection(places_of(chosen, count), attention, macs=macs)

    def _chosen(self, attention: Tensor, rows: Tensor, count: int) -> Tensor:
        """Int64 ``[M, count]`` of ``attention [M, t]``; ``rows [M, t, D]`` have length 1."""
        line = torch.sort(attention, dim=1, descending=True, stable=True).indices
        most = int(count * self.important)
        rest = thinned(rows @ rows.transpose(1, 2), line[:, most:].to(rows.device), count - most)
        return torch.cat([line[:, :most], rest.to(line.device)], 1)
