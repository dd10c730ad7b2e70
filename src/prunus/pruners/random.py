"""Random: a seeded subset. The control that many published methods barely beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunus.method import Cut, Method, View
from prunus.method.budget import Keep, check_keep


@dataclass(frozen=True)
class Random(Method):
    """Keep a random subset without replacement. It depends on the seed and the number of tokens
    only, so that an image keeps the same tokens alone and in a batch; use several seeds."""

    name = "random"
    paper = "control (a strong baseline: UniPruneBench, arXiv 2511.02650)"
    summary = "a seeded random subset"

    keep: Keep = field(default=1 / 3, metadata={"help": "tokens per image, or share of them"})
    seed: int = field(default=0, metadata={"help": "seed of the subset"})
    layer: int | None = field(
        default=1, metadata={"help": "decoder layer at whose input tokens go; none: before the LLM"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(self.layer)]

    def score(self, stage: int, view: View) -> Tensor:
        groups, count = view.present.shape
        source = torch.Generator().manual_seed(self.seed)
        scores = torch.rand(count, generator=source, dtype=torch.float32).to(view.present.device)
        return scores.expand(groups, count)
