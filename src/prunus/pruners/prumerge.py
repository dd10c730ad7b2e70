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
from prunus.signals.outliers import outliers
from prunus.signals.pieces import piece_shares, pieces_of
from prunus.signals.similarity import unit
from prunus.signals.topk import stable_topk

_ATTENTION = TowerAttention("next", heads="joined")
_KEYS = TowerKeys("next", heads="joined")


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
        piece, shares = pieces_of(view.grid, view.present), None
        if view.count is not None:
            shares = piece_shares(view.grid, view.present, view.count)
        kept, mixes, orders = [], [], []
        for image, own in enumerate(piece):
            lines, sums = [], []
            for number in range(view.grid.pieces):
                tokens = (own == number).nonzero().flatten()
                count = None if shares is None else shares[image][number]
                if count == 0 or not len(tokens):
                    continue
                line, mix = self._merged(attention[image, tokens], keys[image, tokens], count)
                lines.append(tokens[line])
                wide = mix.new_zeros(len(mix), len(own))
                sums.append(wide.index_copy(1, tokens, mix))
            order = torch.cat(lines)
            ascending = order.sort()
            kept.append(ascending.values)
            mixes.append(torch.cat(sums)[ascending.indices])
            orders.append(order)
        read = orders if self.order == "published" else None
        return Selection(kept, attention, order=read, mix=mixes)

    def _merged(self, attention: Tensor, keys: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
        """Of one image (tile, frame) of n tokens: int64 ``[k]``, those that stay in the published
        order, the sum of what goes last, and the sums ``[k, n]`` that they become."""
        size = len(attention)
        eye = torch.eye(size, dtype=torch.float32, device=attention.device)
        every = torch.arange(size, device=attention.device)
        if count is not None and count >= size:
            return every, eye
        weights = attention / attention.sum().clamp_min(1.0)  # attention received: as shares
        own = self._chosen(attention, count)
        gone = every[~torch.isin(every, own)]
        near = unit(keys)
        alike = (near[own] @ near.T).masked_fill(eye[own].bool(), -torch.inf)
        added = stable_topk(alike, min(self.neighbours, size - 1))
        mix = eye[own].scatter_add(1, added, weights[added])
        if not len(gone):
            return own, mix
        rest = torch.zeros_like(weights).index_copy(0, gone, weights[gone])
        return torch.cat([own, gone[:1]]), torch.cat([mix, rest[None]])

    def _chosen(self, attention: Tensor, count: int | None) -> Tensor:
        """Int64: tokens that stay as such, by falling attention, then those at equal distances."""
        size = len(attention)
        ranked = torch.sort(attention, descending=True, stable=True).indices
        if count is not None:
            best = ranked[: (count - 1) // 2 if self.plus else count - 1]
            others = ranked[len(best) :].sort().values
            more = count - 1 - len(best)
            places = torch.arange(more, device=ranked.device) * len(others) // max(more, 1)
            return torch.cat([best, others[places]])
        best = ranked[: outliers(attention)]
        if not self.plus:
            return best
        stride = max(1, size // max(len(best), 1) // 3)
        places = torch.arange(0, size - 1, stride, device=ranked.device)
        return torch.cat([best, places[~torch.isin(places, best)]])

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        return None if keep is None else [keep]

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return float(present * present * width)  # at most: keys of what stays with all others

    def neutral(self) -> PruMerge:
        return PruMerge(keep=1.0, plus=self.plus, neighbours=self.neighbours, order=self.order)
