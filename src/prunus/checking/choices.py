"""Whether a prompt chooses the same tokens in a batch as alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.results.trace import TraceEntry


def acted(entry: TraceEntry, sample: int) -> bool:
    """Whether anything happened to ``sample`` at this entry."""
    return entry.labels is None or any(entry.labels[sample])


@dataclass(frozen=True)
class Place:
    """Where two traces of one sample part: an entry, an image, and, inside the vision tower, which
    of its merging blocks."""

    entry: int
    image: int
    step: int | None


def parting(together: Sequence[TraceEntry], alone: Sequence[TraceEntry]) -> Place | None:
    """Where two traces first choose otherwise; None: nowhere that both are."""
    for number, (ours, own) in enumerate(zip(together, alone, strict=False)):
        for image in range(len(ours.kept[0])):
            pairs = zip(_merges(ours, image), _merges(own, image), strict=False)
            for step, (a, b) in enumerate(pairs):
                if a != b:
                    return Place(number, image, step)
            if not torch.equal(ours.kept[0][image], own.kept[0][image]):
                return Place(number, image, None)
    return None


def alike(together: Sequence[TraceEntry], other: Sequence[TraceEntry], place: Place) -> bool:
    """Whether two traces choose the same at ``place`` (and, inside the tower, before it)."""
    if len(other) <= place.entry:
        return False
    ours, own = together[place.entry], other[place.entry]
    if place.step is not None:
        until = place.step + 1
        return _merges(ours, place.image)[:until] == _merges(own, place.image)[:until]
    return torch.equal(ours.kept[0][place.image], own.kept[0][place.image])


def _merges(entry: TraceEntry, image: int) -> list[tuple[int, dict[int, int]]]:
    """For each merging block of the tower its number, and what went into what."""
    if entry.steps is None:
        return []
    return [
        (block, dict(zip(sources.tolist(), into.tolist(), strict=True)))
        for block, sources, into in entry.steps[0][image]
    ]


def compare(
    together: Sequence[TraceEntry], alone: Sequence[TraceEntry], slack: float, exact: bool
) -> tuple[bool, str]:
    """Whether two traces of one sample may be of one method, and what is to be said of them.

    Args:
        slack: how far scores may be apart, as a share of their range, to be a tie of rounding.
        exact: whether choices that have no scores must be the same.
    """
    if len(together) != len(alone):
        return not exact, f"acts {len(alone)} times alone and {len(together)} times in a batch"
    for ours, own in zip(together, alone, strict=True):
        for image, (a, b) in enumerate(zip(ours.kept[0], own.kept[0], strict=True)):
            if torch.equal(a, b):
                if _merges(ours, image) != _merges(own, image):
                    return not exact, "merges other tokens in a batch than alone"
                continue
            scores = None if ours.scores is None else ours.scores[0][image]
            words = f"keeps other tokens in a batch than alone ({_differing(a, b)} of {len(a)})"
            if scores is None:
                return not exact, words
            tied = _tied(a, b, scores, slack)
            # What comes behind a tie chooses among other tokens: nothing to compare.
            return tied, f"{words}, by ties of their scores" if tied else words
    return True, ""


def _differing(a: Tensor, b: Tensor) -> int:
    return len({*a.tolist()} ^ {*b.tolist()}) // 2 or 1


def _tied(a: Tensor, b: Tensor, scores: Tensor, slack: float) -> bool:
    """Whether the tokens in one of the sets only have scores that rounding may have exchanged."""
    if len(a) != len(b):
        return False
    finite = scores[torch.isfinite(scores)]
    only = torch.tensor(sorted({*a.tolist()} ^ {*b.tolist()}))
    apart = scores[only].max() - scores[only].min()
    return bool(apart <= slack * (finite.max() - finite.min()))
