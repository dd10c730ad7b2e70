"""CLSE-M: tokens that words attend to and that change; what goes is merged into a few means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Attention, States, TextMask
from prunus.signals.raters import raters
from prunus.signals.recycling import centres, recycled, taken
from prunus.signals.spectral import at_each_resolution, evolution, gate, high_frequency
from prunus.signals.topk import each_place, stable_topk


@dataclass(frozen=True)
class CLSEM(Method):
    """CLSE-M (arXiv 2606.24165, appendix A.4): CLSE with SparseVLM's merging, for videos.

    Raters are the words behind the video to which, at the model's input, its tokens are most alike.
    ``layer`` runs on everything; a token's score is the raters' mean attention in it times CLSE's
    gate, from the spectra (2-D, of each frame) before and after that layer. As many of the best
    stay as the matrix of the raters' attention has ranks; the best 30 % of the others are recycled:
    density peaks among them become the plain means of their clusters.

    ``keep`` is the *average* over all layers. With it the number of tokens behind ``layer`` is
    solved for: where there is room for more than the rank and all clusters, more tokens stay; where
    there is too little, recycled tokens go first, then the least of those that stay. Without, the
    rank alone decides.

    A paragraph of the paper and no code: what it leaves open is a parameter or told in
    `docs/clse.md`. In the order of the paper's relatives (``positions="compact"``) means stand
    behind what was kept, and positions are closed up; by default each token stays where it was, and
    a mean takes the place of its peak.
    """

    name = "clse-m"
    paper = "arXiv 2606.24165 (ECCV 2026), appendix A.4"
    summary = "relevant and changing tokens, the rest merged into means"
    kind = "merge"
    averages = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"keep": None, "positions": "compact"},
        "194": {"keep": 194, "positions": "compact"},
    }

    keep: Keep | None = field(
        default=None, metadata={"help": "average tokens per layer, or share; none: by rank"}
    )
    layer: int = field(
        default=1, metadata={"help": "decoder layer that is looked at; tokens go behind it"}
    )
    factor: Literal["gate", "intensity"] = field(
        default="gate", metadata={"help": "what attention is multiplied with: gate | I itself"}
    )
    negligible: float = field(
        default=0.01, metadata={"help": "share of the mean attention below which a score is 0"}
    )
    cutoff: float = field(default=0.1, metadata={"help": "r of the Gaussian high-pass, in [0, 1]"})
    temperature: float = field(default=0.1, metadata={"help": "of the sigmoid gate, > 0"})
    positions: Literal["original", "compact"] = field(
        default="original", metadata={"help": "original | compact, means behind what was kept"}
    )

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)
        if self.layer < 0:
            raise PrunusError(f"layer={self.layer}: layers count from 0")
        if not 0.0 <= self.negligible <= 1.0:
            raise PrunusError(f"negligible={self.negligible}: the share must be in [0, 1]")
        if not 0.0 <= self.cutoff <= 1.0:
            raise PrunusError(f"cutoff={self.cutoff}: the share of the spectrum must be in [0, 1]")
        if not 0.0 < self.temperature < math.inf:
            raise PrunusError(f"temperature={self.temperature}: it must be positive and finite")

    def cuts(self, depth: int) -> Sequence[Cut]:
        words = (States(0), States(0, "text"), TextMask())
        sees = (Attention(self.layer, "text", each=True), States(self.layer), *words)
        return [Cut(self.layer + 1, sees, whole=True, compact=self.positions == "compact")]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        return None if keep is None else [keep]

    @property
    def adaptive(self) -> bool:
        return self.keep is None

    def select(self, stage: int, view: View) -> Selection:
        there, width = view.states.shape[1:]
        rows = view[Attention(self.layer, "text", each=True)].to(view.states.device)
        rate = raters(view[States(0)], view[States(0, "text")], view[TextMask()])
        who = each_place(rate.to(rows.device))
        if not all(map(len, who)):
            raise PrunusError(
                "clse-m: no text stands behind an image or video, so that no word can rate its "
                "tokens: put the question behind it, or choose another method"
            )
        maps = [own[mine] for own, mine in zip(rows, who, strict=True)]
        scores = self._scores(view, torch.stack([one.mean(0) for one in maps]))
        if view.count is not None and view.count >= there:
            return replace(Selection.everything(view), scores=scores)
        sides = sum(part.size * (part.rows + part.cols) for part in view.grid.parts)
        macs = 2.0 * width * (rows.numel() + len(maps) * sides)  # rows, who rates; two maps
        kept, order, into, labels = [], [], [], []
        ranks: list[int] = torch.stack([*map(torch.linalg.matrix_rank, maps)]).tolist()
        for attention, rank, states, values in zip(maps, ranks, view.states, scores, strict=True):
            stay, clusters = shared(max(1, rank), view.count, there)
            best = stable_topk(values, stay)
            read, own = recycled(best, states, values, clusters)
            kept.append(read.sort().values)
            order.append(read)
            into.append(own)
            labels.append("merging" if len(read) < there else "")
            again = taken(there - stay, clusters) if clusters else 0
            macs += float(attention.numel() * len(attention) + again * again * width)
        closing = order if self.positions == "compact" else None
        return Selection(kept, scores, labels, closing, into, by_size=False, macs=macs)

    def _scores(self, view: View, attention: Tensor) -> Tensor:
        """Float32 ``[G, n]``: attention ``[G, n]`` times how much each token's spectrum changed."""
        before, after = (
            high_frequency(states, view.grid, self.cutoff)
            for states in (view[States(self.layer)], view.states)
        )
        change = at_each_resolution(view.grid, evolution, after, before)
        if self.factor == "gate":
            opened = partial(gate, temperature=self.temperature)
            change = at_each_resolution(view.grid, opened, change)
        least = self.negligible * attention.mean(1, keepdim=True)
        return torch.where(attention < least, 0.0, attention * change)


def shared(rank: int, total: int | None, there: int) -> tuple[int, int]:
    """How many of ``there`` tokens stay as they are, and how many clusters the others make, so that
    ``total`` are left (None: as many as the rank says)."""
    if total is None:
        stay = min(rank, there)
        return stay, centres(there - stay)
    # One token more that stays is one cluster less, or none: a total that is large enough for the
    # rank and all clusters is met by some number of tokens and all of theirs.
    least = min(rank, total)
    stay = next(k for k in range(least, total + 1) if k + centres(there - k) >= total)
    return stay, total - stay
