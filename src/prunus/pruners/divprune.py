"""DivPrune: the most diverse visual tokens, by max-min distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from prunus.grid import AnyGrid
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.signals.diversity import max_min


@dataclass(frozen=True)
class DivPrune(Method):
    """DivPrune (arXiv 2503.02175): before the language model, on projected features, greedily the
    subset whose nearest members are farthest apart in cosine distance.

    The first is the token whose nearest other one is farthest; each further one has the largest
    distance to those picked. Computed in fp32, ties by lower index; picked tokens are never picked
    again (the released loop, in half precision, may take duplicates).
    """

    name = "divprune"
    paper = "arXiv 2503.02175 (CVPR 2025)"
    summary = "the subset whose nearest members are farthest apart"
    presets = {
        "paper": {"keep": 0.098},
        "192": {"keep": 192},
        "128": {"keep": 128},
        "64": {"keep": 64},
    }

    keep: Keep = field(default=0.098, metadata={"help": "tokens per image, or share of them"})

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None)]

    def select(self, stage: int, view: View) -> Selection:
        count = min(view.count or 0, view.present.shape[1])
        rows = torch.nn.functional.normalize(view.states.float(), dim=-1)
        cosine = rows @ rows.transpose(1, 2)
        order, distance = max_min(cosine.neg_().add_(1.0), count)
        return Selection(order.sort(1).values, distance)

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return float(present * present * width)  # all distances; a step costs n comparisons
