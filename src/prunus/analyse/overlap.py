"""The static-pattern test: do different questions about one image look at the same tokens?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import comb

import numpy as np
from torch import Tensor

from prunus.analyse.context import Context, Step
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import flat
from prunus.analyse.questions import about_same_images
from prunus.analyse.result import Row
from prunus.analyse.signals import Notes, note
from prunus.signals.topk import stable_topk
from prunus.tasks.sets import EvalSet

#: Size of the compared sets.
TOP = 10
_IMAGES, _EACH = 8, 4


def questions(context: Context) -> EvalSet:
    """Questions about a few images that have several; fewer if the analysis is a small one."""
    images = min(_IMAGES, max(1, len(context.data.queries) // _EACH))
    return about_same_images(context.pool, images, _EACH, context.seed)


def jaccard(first: Tensor, second: Tensor) -> float:
    """Size of the intersection by that of the union of two sets of indices."""
    one, other = set(first.tolist()), set(second.tolist())
    return len(one & other) / len(one | other)


def mean_pairwise(scores: Sequence[Tensor], top: int = TOP) -> float:
    """Mean Jaccard index over all pairs of the sets of the ``top`` best tokens by ``scores``, two
    or more of ``[N]``."""
    best = [stable_topk(one, min(top, len(one))) for one in scores]
    return float(np.mean([jaccard(a, b) for a, b in itertools.combinations(best, 2)]))


def by_chance(tokens: int, top: int = TOP) -> float:
    """Expected Jaccard index of two random sets of ``top`` of ``tokens`` (hypergeometric)."""
    top = min(top, tokens)
    total = comb(tokens, top)
    return sum(
        comb(top, both) * comb(tokens - top, top - both) / total * both / (2 * top - both)
        for both in range(top + 1)
        if top - both <= tokens - top
    )


def overlap_rows(context: Context, step: Step) -> tuple[list[Row], int, int]:
    """For every layer but the last the overlap of the most attended and of the most influential
    tokens; and the numbers of questions and images. Empty if no image has two questions."""
    asked = questions(context)
    if not asked.queries:
        return [], 0, 0
    notes = note(context, context.prepare(asked), step)
    own: dict[int, list[Notes]] = {}
    for found, query in zip(notes, asked.queries, strict=True):
        own.setdefault(query.image, []).append(found)
    images = np.array(list(own), dtype=np.int64)
    chance = float(np.mean([by_chance(same[0].grid.size) for same in own.values()]))
    rows = []
    for layer in range(context.depth - 1):
        row: Row = {"layer": layer}
        for name in ("attention", "change"):
            values = [
                mean_pairwise([getattr(one, name)[layer] for one in same]) for same in own.values()
            ]
            row |= flat(f"overlap_{name}", mean_over_images(np.array(values), images))
        rows.append({**row, "by_chance": chance})
    return rows, len(asked.queries), len(own)
