"""What is derived of a method, for tests: by its signals, its cuts and its budget."""

from __future__ import annotations

from typing import Any

from prunus.method import looks_at_question, tower_part
from prunus.method.budget import Budget


def asks(method: Any, depth: int = 12) -> bool:
    """Whether its choice depends on the question."""
    return any(looks_at_question(part, depth) for part in method.parts(depth))


def needs_grid(method: Any, depth: int = 12) -> bool:
    """Whether its first stage must see the whole grid."""
    cuts = method.cuts(depth)
    return bool(cuts) and cuts[0].whole


def in_tower(method: Any) -> bool:
    """Whether it merges inside the vision tower."""
    return any(tower_part(part) is not None for part in method.parts())


def proportional(method: Any) -> bool:
    """Whether it adds a bias to the tower's attention."""
    found = [tower_part(part) for part in method.parts()]
    return any(part is not None and part.proportional for part in found)


def nominal(method: Any, size: int, depth: int = 12) -> float | None:
    """Tokens that it was asked for of an image of ``size``."""
    return Budget([method], depth).asked(method, 1, size)


def counts(method: Any, size: int, depth: int = 12) -> tuple[int, ...]:
    """Tokens that its stages leave of an image (a frame) of ``size``."""
    found = Budget([method], depth).counts(method, 1, size)
    assert found is not None
    return found
