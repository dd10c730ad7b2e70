"""What a pruning method is: its configuration, where it looks, what it answers."""

from prunus.method.base import Method, acting, looks_at_question, signals_of
from prunus.method.capabilities import (
    EditsAttention,
    MergesInTower,
    Published,
    Remarking,
    Seen,
    tower_part,
)
from prunus.method.places import Cut, Edit
from prunus.method.registry import find_method, make_method, methods
from prunus.method.selection import Selection
from prunus.method.view import View

__all__ = [
    "Cut",
    "Edit",
    "EditsAttention",
    "MergesInTower",
    "Method",
    "Published",
    "Remarking",
    "Seen",
    "Selection",
    "View",
    "acting",
    "find_method",
    "looks_at_question",
    "make_method",
    "methods",
    "signals_of",
    "tower_part",
]
