"""Greedy coverage, everything computed anew at every step, in plain loops."""

from __future__ import annotations

from collections.abc import Sequence


def literal_cover(
    cover: Sequence[Sequence[float]], count: int, weight: Sequence[float] | None = None
) -> list[int]:
    """Of rows that tokens serve, the tokens in the order of picking; ties by lower index."""
    tokens = range(len(cover[0]))
    weight = weight or [1.0 for _ in tokens]
    served, picked = [0.0 for _ in cover], []
    while len(picked) < count:
        gain = {
            token: weight[token]
            * sum(max(0.0, row[token] - had) for row, had in zip(cover, served, strict=True))
            for token in tokens
            if token not in picked
        }
        best = max(gain, key=lambda token: (gain[token], -token))
        picked.append(best)
        served = [max(had, row[best]) for row, had in zip(cover, served, strict=True)]
    return picked
