"""The change of states between layers, read literally."""

from __future__ import annotations


def literal(current: list[float], reference: list[float]) -> tuple[float, float]:
    """SFR and MMD of one token."""
    norm = sum(abs(a - b) for a, b in zip(current, reference, strict=True))
    width = len(current)
    return norm, abs(sum(current) / width - sum(reference) / width)
