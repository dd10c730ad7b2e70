"""ToMe (arXiv 2210.09461), read literally."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tests.support.oracles.merged import Pairs, Seen


def bipartite_soft_matching(
    metric: Tensor, removed: int, class_token: bool
) -> tuple[list[tuple[int, int]], list[int]]:
    """ToMe's matching (arXiv 2210.09461), row by row: rows of ``metric [S, d]`` alternate between A
    and B from row 0 on, which is CLS where there is one.

    Returns:
        Pairs of rows (from A into B), and all rows that are left in ToMe's order: unmerged ones of
        A as its argsort has them (sorted if CLS must come first), then B.
    """
    assert removed <= (len(metric) - class_token) // 2
    a, b = list(range(0, len(metric), 2)), list(range(1, len(metric), 2))
    edges = []
    for row in a:
        best = max(
            b,
            key=lambda other: (
                float(torch.cosine_similarity(metric[row], metric[other], 0)),
                -other,
            ),
        )
        similar = float(torch.cosine_similarity(metric[row], metric[best], 0))
        edges.append((-math.inf if class_token and row == 0 else similar, row, best))
    edges.sort(key=lambda edge: (-edge[0], edge[1]))
    unmerged = [row for _, row, _ in edges[removed:]]
    if class_token:
        unmerged.sort()
    return [(row, best) for _, row, best in edges[:removed]], unmerged + b


def tome(counts: list[int], class_token: bool) -> Callable[[Seen], Pairs | None]:
    """ToMe from block to block: the line of tokens (original indices; -1 for CLS) is what the block
    before left."""
    line: list[int] = []

    def choose(seen: Seen) -> Pairs | None:
        line[:] = line or [-1] * class_token + seen.order
        assert sorted(line)[class_token:] == seen.order
        if not counts[seen.block]:
            return None
        metric = dict(zip(seen.order, seen.keys, strict=True))
        metric[-1] = torch.ones(seen.keys.shape[1])  # CLS, whatever its key: it is never merged
        rows = torch.stack([metric[index] for index in line])
        pairs, left = bipartite_soft_matching(rows, counts[seen.block], class_token)
        chosen = [line[row] for row, _ in pairs], [line[row] for _, row in pairs]
        line[:] = [line[row] for row in left]
        assert not class_token or line[0] == -1
        return chosen

    return choose
