"""PruMerge and PruMerge+: outliers of CLS attention, and in each what is like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Features, TowerAttention, TowerKeys
from prunus.signals.contextual import others_of
from prunus.signals.outliers import outliers
from prunus.signals.pieces import left_of_pieces, piece_shares, pieces_of
from prunus.signals.similarity import unit
from prunus.signals.topk import each_place, stable_topk

_ATTENTION = TowerAttention("next", heads="joined")
_KEYS = TowerKeys("next", heads="joined")


@dataclass(frozen=True)
class _Part:
    """An ``image``, or one tile or frame of it: its ``tokens`` (int64 ``[n]``), the ``attention
    [n]`` that they get, and how many are to be left (None: as many as the attention says)."""

    image: int
    tokens: Tensor
    attention: Tensor
    count: int | None


@dataclass(frozen=True)
class PruMerge(Method):
    """PruMerge (arXiv 2403.15388), between vision tower and projector; ``plus``: PruMerge+.

    Tokens that CLS attends to stay, with ``plus`` some at equal distances as well. To each of them
    the ``neighbours`` whose keys are most like its own are added, kept or not, weighted by their
    attention; the sum of all that went, so weighted, is one more token. Attention and keys are
    those of the tower's block *behind* the last that is read, all heads side by side, as in the
    released code; where the last block is read, of that one. Without a CLS token the weights are
    the attention that tokens receive in that block, as shares of one (ours).

    Without ``keep`` the attention says how many stay, as published: its outliers, and with ``plus``
    every third of a stride that as many would have. (Where nothing is an outlier, ``plus`` keeps
    three at equal distances, ours: published code divides by zero.) With ``keep`` they are that
    many, the sum of what went among them, with ``plus`` half of them by attention and half at equal
    distances (ours: the protocol of published rows for 192, 128 and 64 is unknown; 73 is the
    released eighth).

    Each tile and each frame is an image of its own here, with its share of ``keep`` and a sum of
    its own. That sum takes the place of the first token that went. ``order="published"`` reads
    tokens by falling attention, then those at equal distances, then the sum.
    """

    name = "prumerge"
    paper = "arXiv 2403.15388 (ICCV 2025)"
    summary = "outliers of CLS attention, with what is like them added"
    kind = "merge"
    presets = {
        "paper": {},
        "192": {"keep": 192},
        "128": {"keep": 128},
        "64": {"keep": 64},
        "plus": {"plus": True},
        "plus-192": {"plus": True, "keep": 192},
        "plus-128": {"plus": True, "keep": 128},
        "plus-64": {"plus": True, "keep": 64},
    }

    keep: Keep | None = field(
        default=None, metadata={"help": "tokens per image, or share of them; none: by outliers"}
    )
    plus: bool = field(default=False, metadata={"help": "PruMerge+: also some at equal distances"})
    neighbours: int = field(default=32, metadata={"help": "tokens that are added to each"})
    order: Literal["original", "published"] = field(
        default="original", metadata={"help": "in which the language model reads them"}
    )

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)
        if self.neighbours < 0:
            raise PrunusError(f"neighbours={self.neighbours}: it cannot be negative")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (Features(), _ATTENTION, _KEYS), space="tower")]

    def select(self, stage: int, view: View) -> Selection:
        attention, keys = view[_ATTENTION], view[_KEYS]
        if view.count is not None and view.count >= view.present.shape[1]:
            return Selection(Selection.everything(view).kept, attention)
        left = left_of_pieces(view.grid, view.present)
        shares: Sequence[Sequence[int | None]] = [[None] * view.grid.pieces] * len(left)
        if view.count is not None:
            shares = piece_shares(view.grid, view.present, view.count)
        line = torch.sort(pieces_of(view.grid, view.present), dim=1, stable=True).indices
        parts = [
            _Part(image, tokens, attention[image, tokens], count)
            for image, (own, sizes, counts) in enumerate(zip(line, left, shares, strict=True))
            for tokens, count in zip(own.split(sizes), counts, strict=True)
            if count != 0 and len(tokens)
        ]
        chosen = self._chosen(parts)
        kept, mixes, orders = [], [], []
        for image in range(len(line)):
            lines, sums = [], []
            for part, own in zip(parts, chosen, strict=True):
                if part.image == image:
                    read, mix = self._merged(part, own, keys[image, part.tokens])
                    lines.append(part.tokens[read])
                    wide = mix.new_zeros(len(mix), line.shape[1])
                    sums.append(wide.index_copy(1, part.tokens, mix))
            order = torch.cat(lines)
            ascending = order.sort()
            kept.append(ascending.values)
            mixes.append(torch.cat(sums)[ascending.indices])
            orders.append(order)
        published = orders if self.order == "published" else None
        return Selection(kept, attention, order=published, mix=mixes)

    def _merged(self, part: _Part, own: Tensor | None, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Of one part of n tokens, of which ``own`` stay as such: int64 ``[k]``, what is left in
        the published order, the sum of what goes last, and the sums ``[k, n]`` that they become."""
        size = len(part.tokens)
        eye = torch.eye(size, dtype=torch.float32, device=keys.device)
        if own is None:
            return torch.arange(size, device=keys.device), eye
        # Attention received (where there is no CLS) as shares.
        weights = part.attention / part.attention.sum().clamp_min(1.0)
        gone = others_of(own, size)
        near = unit(keys)
        alike = (near[own] @ near.T).masked_fill(eye[own].bool(), -torch.inf)
        added = stable_topk(alike, min(self.neighbours, size - 1))
        mix = eye[own].scatter_add(1, added, weights[added])
        if not len(gone):
            return own, mix
        rest = torch.zeros_like(weights).index_copy(0, gone, weights[gone])
        return torch.cat([own, gone[:1]]), torch.cat([mix, rest[None]])

    def _chosen(self, parts: Sequence[_Part]) -> list[Tensor | None]:
        """Int64 of each part: tokens that stay as such, by falling attention, then those at equal
        distances; None: all of them do. What attention decides is read once for all parts."""
        found: list[int] = []
        if any(part.count is None for part in parts):
            found = torch.stack([outliers(part.attention) for part in parts]).tolist()
        best, more = [], []
        for number, part in enumerate(parts):
            ranked = torch.sort(part.attention, descending=True, stable=True).indices
            size, count = len(ranked), part.count
            if count is None:
                best.append(ranked[: found[number]])
                stride = max(1, size // max(found[number], 1) // 3)
                more.append(torch.arange(0, size - 1 if self.plus else 0, stride).to(ranked))
                continue
            best.append(ranked[: (count - 1) // 2 if self.plus else count - 1])
            others = ranked[len(best[-1]) :].sort().values
            places = max(0, count - 1 - len(best[-1]))
            steps = torch.arange(places, device=ranked.device) * len(others) // max(places, 1)
            more.append(others[steps])
        if self.plus and found:  # outliers may lie at these distances
            fresh = [~torch.isin(own, top) for own, top in zip(more, best, strict=True)]
            more = [own[at] for own, at in zip(more, each_place(fresh), strict=True)]
        return [
            None if part.count is not None and part.count >= len(part.tokens) else torch.cat(own)
            for part, *own in zip(parts, best, more, strict=True)
        ]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        return None if keep is None else [keep]

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return float(present * present * width)  # at most: keys of what stays with all others

    def neutral(self) -> PruMerge:
        return PruMerge(keep=1.0, plus=self.plus, neighbours=self.neighbours, order=self.order)
