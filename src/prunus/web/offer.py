"""Which methods are offered: those that run on the model, for what is shown to it."""

from __future__ import annotations

import contextlib
from typing import Any

from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.families.proved import REFUSED, proved
from prunus.inference.named import NONE
from prunus.method import methods
from prunus.method.registry import required
from prunus.run import prune
from prunus.web.source import Kind


def offered(model: Any, kind: Kind) -> list[str]:
    """Names of methods, each with its presets behind it, and ``none`` at the end: without those
    that were proved to be refused for inputs of this ``kind``, that this very model cannot be
    pruned by, or that need a parameter."""
    table = proved().get(family_of(model).name, {}).get(kind, {})
    found = []
    for name, cls in methods().items():
        if not table.get(name, "").startswith(REFUSED) and not required(cls):
            named = [name, *(f"{name}@{preset}" for preset in cls.presets)]
            found += [one for one in named if _can(model, one)]
    return [*found, NONE]


def _can(model: Any, name: str) -> bool:
    """Whether ``model`` can be pruned so, as far as is known before anything runs."""
    with contextlib.suppress(PrunusError):
        prune(model, name)
        return True
    return False
