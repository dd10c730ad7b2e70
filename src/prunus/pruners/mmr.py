"""MMR: picks tokens one by one by relevance to the question and distance from those picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Features, Question
from prunus.method.words import question_text
from prunus.signals.topk import Lines


@dataclass(frozen=True)
class MMR(Method):
    """Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998), greedily: the training-free
    counterpart of Stepwise, on the same features before the language model.

    Each step takes the token with the largest ``w r_i - (1 - w) max_{j picked} cos(x_i, x_j)``: x
    are visual features as a selector reads them, r the largest cosine of the projected token with a
    word of the question, from 0 to 1 over the image's tokens. The first has the largest r; where
    ``weight`` is 0, the largest distance to its nearest neighbour (as in DivPrune).
    """

    name = "mmr"
    paper = "control (maximal marginal relevance, SIGIR 1998)"
    summary = "greedy: like the question's words, unlike those picked"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"diversity": {"weight": 0.0}}

    keep: Keep = field(default=1 / 9, metadata={"help": "tokens per image, or share of them"})
    weight: float = field(default=0.5, metadata={"help": "of relevance against diversity, 0 to 1"})

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if not 0 <= self.weight <= 1:
            raise PrunusError(f"weight={self.weight}: give a number from 0 to 1")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (Features(), Question()) if self.weight else (Features(),))]

    def select(self, stage: int, view: View) -> Selection:
        count = view.count or 0
        if count >= view.present.shape[1]:
            return Selection(Selection.everything(view).kept)
        rows = nn.functional.normalize(view[Features()].float(), dim=-1)
        similar = rows @ rows.transpose(1, 2)
        itself = torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device)
        if self.weight:
            relevance = self._relevance(view).to(rows.device)
            first = relevance
        else:
            relevance = rows.new_zeros(rows.shape[:2])
            first = -similar.masked_fill(itself, -1.0).amax(-1)
        score, own = first.clone(), self.weight * relevance
        nearest, lines = torch.full_like(relevance, -1.0), Lines(similar)
        picked = torch.zeros(count, len(rows), dtype=torch.long, device=rows.device)
        for best in picked:
            torch.argmax(score, 1, out=best)
            torch.maximum(nearest, lines[best], out=nearest)
            own.scatter_(1, best[:, None], -torch.inf)
            torch.sub(own, torch.mul(nearest, 1 - self.weight, out=score), out=score)
        return Selection(picked.T.sort(1).values, relevance if self.weight else first)

    def _relevance(self, view: View) -> Tensor:
        """Float32 ``[G, N]`` in 0..1."""
        text, valid = question_text(view[Question()])
        text = nn.functional.normalize(text.float(), dim=-1)
        states = nn.functional.normalize(view.states.float(), dim=-1).to(text.device)
        cosine = states @ text.transpose(1, 2)
        best = cosine.masked_fill(~valid[:, None], -1.0).amax(-1)
        low, high = best.aminmax(dim=1, keepdim=True)
        return (best - low) / (high - low).clamp_min(1e-6)

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return float(present * present * width)  # all similarities; a step costs N comparisons

    def neutral(self) -> MMR:
        return replace(self, keep=1.0)
