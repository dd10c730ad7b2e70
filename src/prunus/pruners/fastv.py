"""FastV: after the first layers, keep the tokens that the last prompt token attends to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method import Cut, Method, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Attention


@dataclass(frozen=True)
class FastV(Method):
    """FastV (arXiv 2403.06764): one cut at the input of ``layer``, by the last prompt token's
    attention in the layer before, mean over heads. Positions stay, and so do the caches of earlier
    layers.

    The paper's layer counts from 1 in some of its tables: k = 2 and 3 with half of the tokens are
    its settings; "hf" is the default of its code for Hugging Face's LLaVA. "192 tokens" of later
    papers are those behind the cut: of 576 tokens in 32 layers 216 per layer in truth (which k they
    took is not known; here it is 2). ``equal-192``, ``equal-128`` and ``equal-64`` are ours: what
    averages 192, 128 and 64 there. Elsewhere say ``budget="true"``, which finds the number.
    """

    name = "fastv"
    paper = "arXiv 2403.06764 (ECCV 2024)"
    summary = "what the last prompt token attends to in an early layer"
    presets = {
        "paper": {"keep": 0.5, "layer": 2},
        "paper-k3": {"keep": 0.5, "layer": 3},
        "hf": {"keep": 0.25, "layer": 3},
        "192": {"keep": 192},
        "128": {"keep": 128},
        "64": {"keep": 64},
        "equal-192": {"keep": 166},
        "equal-128": {"keep": 98},
        "equal-64": {"keep": 30},
    }

    keep: Keep = field(default=0.5, metadata={"help": "tokens per image, or share of them"})
    layer: int = field(default=2, metadata={"help": "k: decoder layer at whose input tokens go"})

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.layer < 1:
            raise PrunusError(
                f"layer={self.layer}: some layer must have run before: give 1 or more"
            )

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(self.layer, (Attention(self.layer - 1),))]

    def score(self, stage: int, view: View) -> Tensor:
        return view[Attention(self.layer - 1)]

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return float(present * width)  # one row of logits
