"""What a method answers, at every place alike: which tokens stay, and what they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunus.signals.topk import places_of

if TYPE_CHECKING:
    from prunus.method.view import View


@dataclass(frozen=True)
class Selection:
    """The answer for the G images of one view, which have ``n`` tokens present.

    Attributes:
        kept: int64 ``[G, k]``, or G ragged tensors, ascending indices into the n present tokens:
            those that stay, at their own places, positions and cells.
        scores: float32 ``[G, n]`` for trace and pictures, or None.
        labels: for each image what happened, in one word, or "" where nothing did; a selection in
            which nothing happened leaves no trace.
        order: the same indices as ``kept`` in the order in which the language model is to read
            them; before it, or where positions are closed up (where they are no line, tokens are
            read as they lie).
        into: int64 ``[G, n]``, or G tensors: for every present token the index of the kept one that
            it becomes part of (kept ones: themselves), -1 where it goes without a trace.
        weights: float32 ``[G, n]``, or G tensors, with ``into``: how much of each token there is in
            what it becomes part of. None: kept tokens become the mean of what meets in them, by
            the number of original tokens that each stands for (``by_size``), or plainly.
        mix: instead, in general: G tensors float32 ``[k, n]``: every kept token becomes that sum of
            present ones. With one column more, the last is the tower's CLS feature
            (:class:`~prunus.method.signals.Summary`).
        pairs: in the vision tower, sources and destinations int64 ``[G, r]``: see :meth:`merge`.
        carry: ``[G, n]`` or ``[G, n, ...]``, given back at the tower's next merging block for those
            of the tokens that are left; the method's memory between blocks.
        macs: multiply-accumulates that choosing cost, if :meth:`Method.macs` cannot know; for the
            tower per frame, apart from what its signals took.
    """

    kept: Tensor | Sequence[Tensor]
    scores: Tensor | None = None
    labels: Sequence[str] | None = None
    order: Sequence[Tensor] | None = None
    into: Tensor | Sequence[Tensor] | None = None
    weights: Tensor | Sequence[Tensor] | None = None
    mix: Sequence[Tensor] | None = None
    pairs: tuple[Tensor, Tensor] | None = None
    by_size: bool = True
    carry: Tensor | None = None
    macs: float | None = None

    @classmethod
    def everything(cls, view: View) -> Selection:
        """Keep all, and leave no trace."""
        groups, count = view.present.shape
        every = torch.arange(count, device=view.present.device).expand(groups, -1)
        return cls(every, labels=[""] * groups)

    @classmethod
    def merge(
        cls,
        view: View,
        source: Tensor,
        destination: Tensor,
        by_size: bool = True,
        scores: Tensor | None = None,
        carry: Tensor | None = None,
        macs: float | None = None,
    ) -> Selection:
        """``source`` tokens go into ``destination`` tokens: int64 ``[G, r]`` of equal shape,
        indices into the n present ones; no destination is a source, and one may take several.
        Without reading anything from the device."""
        groups, count = view.present.shape
        steps = torch.arange(count, device=source.device).expand(groups, -1)
        stays = torch.ones_like(steps, dtype=torch.bool).scatter(1, source, False)
        kept = places_of(stays, count - source.shape[1])
        into = steps.scatter(1, source, destination)
        pairs = (source, destination)
        return cls(kept, scores, None, None, into, None, None, pairs, by_size, carry, macs)
