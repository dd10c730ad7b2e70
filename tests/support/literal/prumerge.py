"""PruMerge and PruMerge+ (arXiv 2403.15388), read literally."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def chosen(attention: Sequence[float], keep: int | None, plus: bool) -> list[int]:
    """Which tokens stay as such, in the published order."""
    size = len(attention)
    ranked = sorted(range(size), key=lambda n: (-attention[n], n))
    if keep is not None:
        first = ranked[: (keep - 1) // 2 if plus else keep - 1]
        others = [n for n in range(size) if n not in first]
        more = keep - 1 - len(first)
        return first + [others[int(n * len(others) / more)] for n in range(more)]
    low, high = np.percentile(attention, 25), np.percentile(attention, 75)
    count = sum(value > high + 1.5 * (high - low) for value in attention)
    first = ranked[:count]
    if plus:
        stride = max(1, int(int(size / max(count, 1)) / 3))
        first = first + [n for n in range(0, size - 1, stride) if n not in first]
    return first


def merged(
    features: Sequence[Tensor],
    attention: Sequence[float],
    keys: Sequence[Tensor],
    keep: int | None = None,
    plus: bool = False,
    neighbours: int = 32,
) -> tuple[list[int], list[Tensor]]:
    """Tokens of one image in the published order, -1 for the sum of what went, and features."""
    size, found = len(features), []
    own = chosen(attention, keep, plus)
    for token in own:
        alike = {
            n: float(torch.cosine_similarity(keys[token].double(), keys[n].double(), 0))
            for n in range(size)
            if n != token
        }
        total = features[token].clone()
        for n in sorted(alike, key=lambda n: (-alike[n], n))[:neighbours]:
            total = total + attention[n] * features[n]
        found.append(total)
    extra = torch.zeros_like(features[0])
    for n in range(size):
        if n not in own:
            extra = extra + attention[n] * features[n]
    return [*own, -1], [*found, extra]
