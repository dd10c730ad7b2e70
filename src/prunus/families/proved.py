"""What was proved on each family: method by method, on images and on videos.

``proved.json`` is written by ``python -m tests.support.matrix``, which runs :func:`prunus.check` on
tiny random models of the real classes; tests compare it with what the code does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

Proved = Mapping[str, Mapping[str, Mapping[str, str]]]
"""For each family and each kind of input ("image", "video") the methods: "" where all columns of a
check are right, else why it is refused, or what could not be compared."""

REFUSED = "refused: "


@cache
def proved() -> Proved:
    """The whole table."""
    text = (files("prunus.families") / "proved.json").read_text("utf-8")
    found: Proved = json.loads(text)
    return found


def runs_on(family: str, method: str) -> bool | None:
    """Whether ``method`` runs on ``family``, on one kind of input at least; None where it was never
    tried (a method or a family from outside)."""
    said = [own[method] for own in proved().get(family, {}).values() if method in own]
    return None if not said else any(not word.startswith(REFUSED) for word in said)
