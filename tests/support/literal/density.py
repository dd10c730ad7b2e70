"""The diversity of EvoPrune, read literally."""

from __future__ import annotations

import math
from typing import Any


def literal_diversity(vectors: list[list[float]], neighbours: int, tau: Any) -> list[float]:
    """How far each vector is from its nearest ``neighbours``, in [0, 1]."""
    nearest = []
    for i, one in enumerate(vectors):
        others = (other for j, other in enumerate(vectors) if j != i)
        distances = sorted(sum((a - b) ** 2 for a, b in zip(one, o, strict=True)) for o in others)
        nearest.append(distances[:neighbours])
    flat = [d for row in nearest for d in row]
    scale = sum(flat) / len(flat) if tau == "auto" else tau**2
    return [1 - sum(math.exp(-d / scale) for d in row) / len(row) for row in nearest]
