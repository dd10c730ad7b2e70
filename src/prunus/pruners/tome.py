"""ToMe: merge the most similar tokens in every block of the vision tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.removals import removals
from prunus.method.signals import Signal, TowerKeys
from prunus.method.view import Facts
from prunus.signals.bipartite import best_and_others, lined_up, rows, sides
from prunus.signals.similarity import best_partners, unit


@dataclass(frozen=True)
class ToMe(Method):
    """Token merging (arXiv 2210.09461) in a model's own vision tower: between attention and MLP of
    every block, every second token finds its most similar partner among the others, by attention
    keys (mean over heads), and the best pairs merge into the mean of the original tokens that they
    stand for. The CLS token, where there is one, has the first place of the line and never merges.

    ``r`` tokens go in every block (at most half, rounded down), or so many that exactly ``keep``
    are left, spread evenly. Later attention counts a merged token by its size (``proportional``).
    """

    name = "tome"
    paper = "arXiv 2210.09461 (ICLR 2023)"
    summary = "merges the most similar tokens in every block"
    kind = "merge"
    unit = "frame"
    presets = {"192": {"keep": 192}, "128": {"keep": 128}, "64": {"keep": 64}, "r16": {"r": 16}}

    keep: Keep | None = field(
        default=1 / 3, metadata={"help": "tokens per image or frame, or share; none: by r"}
    )
    r: int | None = field(default=None, metadata={"help": "instead: tokens that go in every block"})
    proportional: bool | None = field(
        default=None, metadata={"help": "count by size in attention; default: where the tower can"}
    )
    cls: bool | None = field(
        default=None, metadata={"help": "CLS has the first place; default: where there is one"}
    )

    def __post_init__(self) -> None:
        if self.r is not None:
            object.__setattr__(self, "keep", None)
            if self.r < 0:
                raise PrunusError(f"r={self.r}: the number of tokens cannot be negative")
        elif self.keep is None:
            raise PrunusError("keep=None and r=None: give one of them")
        else:
            check_keep(self.keep)

    def bind(self, model: Facts) -> ToMe:
        bias = model.tower_takes_bias if self.proportional is None else self.proportional
        cls = model.tower_has_summary if self.cls is None else self.cls
        return replace(self, proportional=bias, cls=cls)

    @property
    def in_tower(self) -> tuple[Signal[Any], ...]:
        return (TowerKeys(),)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return []

    def merges(self, blocks: int, original: int, count: int | None) -> Sequence[int]:
        if count is not None:
            return removals(original, count, [1.0] * blocks, larger=False)
        gone, left = [], original
        for _ in range(blocks):
            gone.append(min(self.r or 0, left // 2))
            left -= gone[-1]
        return gone

    def merge(self, view: View) -> Selection:
        gone, cls = view.count or 0, bool(self.cls)
        vectors = unit(view[TowerKeys()])
        giving, taking = sides(vectors, view.carry, cls)
        scores, partner = best_partners(rows(vectors, giving), rows(vectors, taking))
        best, others = best_and_others(scores, gone)
        source, into = giving.gather(1, best), taking.gather(1, partner.gather(1, best))
        carry = lined_up(others, giving, taking, cls)
        macs = float(giving.shape[1] * taking.shape[1] * vectors.shape[2])
        return Selection.merge(view, source, into, carry=carry, macs=macs)

    def neutral(self) -> ToMe:
        return replace(self, keep=1.0, r=None)
