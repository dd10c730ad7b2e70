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


def literal_peaks(states: list[list[float]], count: int) -> tuple[list[int], list[int]]:
    """Density peaks from the best on, and for each vector the number of its peak. Of equally dense
    ones the earlier is denser."""
    every = range(len(states))
    distance = [
        [
            math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True))) / math.sqrt(len(a))
            for b in states
        ]
        for a in states
    ]
    dense = []
    for one in every:
        nearest = sorted(d * d for d in distance[one])[:count]
        dense.append(math.exp(-sum(nearest) / len(nearest)))
    value = []
    for one in every:
        above = [
            distance[one][other]
            for other in every
            if dense[other] > dense[one] or (dense[other] == dense[one] and other < one)
        ]
        value.append(dense[one] * (min(above) if above else max(map(max, distance))))
    peaks = sorted(every, key=lambda one: (-value[one], one))[:count]
    nearest_peak = []
    for one in every:
        apart = [distance[one][peak] for peak in peaks]
        nearest_peak.append(peaks.index(one) if one in peaks else apart.index(min(apart)))
    return peaks, nearest_peak
