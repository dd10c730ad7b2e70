"""PyramidDrop: fewer and fewer tokens, in stages through the language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method import Cut, Method, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Attention


@dataclass(frozen=True)
class PyramidDrop(Method):
    """PyramidDrop (arXiv 2410.17247): before each of the ``layers``, the last prompt token's
    attention in the layer that is about to run says which tokens stay; after stage i there are
    ``ratio ** i`` of the original ones. Positions are closed up.

    ``keep`` is the *average* over all layers, as in the paper's "270 tokens": with it the ratio is
    found that reaches it. The layers before the first stage see everything, so that the published
    8, 16, 24 of 32 never average under a quarter: published rows for less used other layers, and
    which is not known. "paper" is the released setting; "192", "128" and "64" are ours.
    """

    name = "pyramiddrop"
    paper = "arXiv 2410.17247 (CVPR 2025)"
    summary = "fewer from stage to stage, by attention in the next layer"
    averages = True
    presets = {
        "paper": {},
        "192": {"keep": 192},
        "128": {"keep": 128, "layers": (2, 10, 18)},
        "64": {"keep": 64, "layers": (2, 10, 18)},
    }

    keep: Keep | None = field(
        default=None, metadata={"help": "average tokens per layer, or share; none: by ratio"}
    )
    ratio: float = field(default=0.5, metadata={"help": "share that each stage leaves, in (0, 1]"})
    layers: tuple[int, ...] | None = field(
        default=None, metadata={"help": "layers at whose input tokens go; default: 3 quarters"}
    )
    positions: Literal["compact", "original"] = field(
        default="compact", metadata={"help": "compact, as published | original"}
    )

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)
        if not 0.0 < self.ratio <= 1.0:
            raise PrunusError(f"ratio={self.ratio}: the share of each stage must be in (0, 1]")
        if self.layers is not None and not self.layers:
            raise PrunusError("layers=(): name one or more")

    def cuts(self, depth: int) -> Sequence[Cut]:
        layers = self.layers or _quarters(depth)
        compact = self.positions == "compact"
        return [Cut(layer, (Attention(layer),), compact=compact) for layer in layers]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float]:
        ratio = self.ratio if keep is None else keep / original
        return [original * ratio**stage for stage in range(1, len(self.cuts(depth)) + 1)]

    def score(self, stage: int, view: View) -> Tensor:
        return view[Attention(self.cuts(view.depth)[stage].layer or 0)]

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return present * width * (3.0 * width + 1)  # projections again, one row of logits

    def neutral(self) -> PyramidDrop:
        return PyramidDrop(ratio=1.0, layers=self.layers, positions=self.positions)


def _quarters(depth: int) -> tuple[int, ...]:
    """8, 16, 24 of 32, and the same shares of other depths."""
    return tuple(sorted({max(1, depth * part // 4) for part in (1, 2, 3)}))
