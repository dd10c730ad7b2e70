"""Uniform: every n-th token. The control that needs no model at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunus.budget import Keep, check_keep
from prunus.method import Cut, Method, View


@dataclass(frozen=True)
class Uniform(Method):
    """Keep tokens at equal distances along the row-major order: exactly ``keep`` of them, at
    ``floor((i + 1/2) * N / keep)``. One of the three controls every comparison needs."""

    name = "uniform"
    paper = "control (stride sampling, as HiRED's spatial option)"
    summary = "tokens at equal distances, whatever they show"

    keep: Keep = field(default=1 / 3, metadata={"help": "tokens per image, or share of them"})
    layer: int | None = field(
        default=1, metadata={"help": "decoder layer at whose input tokens go; none: before the LLM"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(self.layer)]

    def score(self, stage: int, view: View) -> Tensor:
        groups, count = view.present.shape
        keep = min(self.budget(stage, view.grid.size), count)
        chosen = (2 * torch.arange(keep, device=view.present.device) + 1) * count // (2 * keep)
        scores = torch.zeros(count, device=view.present.device)
        scores[chosen] = 1.0
        return scores.expand(groups, count)
