"""prunus: fewer visual tokens for multimodal language models, on unmodified transformers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prunus.versions import __version__, check_transformers

if TYPE_CHECKING:
    from prunus.checking import CheckReport, check
    from prunus.errors import (
        PromptEndWarning,
        PrunusError,
        PrunusFileError,
        PrunusStateError,
        PrunusTypeError,
    )
    from prunus.loading import load
    from prunus.method import Cut, Edit, Method, Selection, View, methods
    from prunus.pruners.clse import CLSE
    from prunus.pruners.evoprune import EvoPrune
    from prunus.pruners.fixed import Fixed
    from prunus.pruners.knockout import Knockout
    from prunus.pruners.mmr import MMR
    from prunus.pruners.one_shot import OneShot
    from prunus.pruners.random import Random
    from prunus.pruners.stepwise import Stepwise
    from prunus.pruners.uniform import Uniform
    from prunus.pruners.visipruner import VisiPruner
    from prunus.results.report import Report
    from prunus.results.trace import TraceEntry
    from prunus.run import Run, attach, detach, prune
    from prunus.signals.influence import Influence

# Imported at first use: torch and transformers take seconds, and `prunus --help` needs neither.
_HOME = {
    "CLSE": "prunus.pruners.clse",
    "CheckReport": "prunus.checking",
    "Cut": "prunus.method.places",
    "Edit": "prunus.method.places",
    "EvoPrune": "prunus.pruners.evoprune",
    "Fixed": "prunus.pruners.fixed",
    "Influence": "prunus.signals.influence",
    "Knockout": "prunus.pruners.knockout",
    "MMR": "prunus.pruners.mmr",
    "Method": "prunus.method.base",
    "OneShot": "prunus.pruners.one_shot",
    "PromptEndWarning": "prunus.errors",
    "PrunusError": "prunus.errors",
    "PrunusFileError": "prunus.errors",
    "PrunusStateError": "prunus.errors",
    "PrunusTypeError": "prunus.errors",
    "Random": "prunus.pruners.random",
    "Report": "prunus.results.report",
    "Run": "prunus.run",
    "Selection": "prunus.method.selection",
    "Stepwise": "prunus.pruners.stepwise",
    "TraceEntry": "prunus.results.trace",
    "Uniform": "prunus.pruners.uniform",
    "View": "prunus.method.view",
    "VisiPruner": "prunus.pruners.visipruner",
    "attach": "prunus.run",
    "check": "prunus.checking",
    "detach": "prunus.run",
    "load": "prunus.loading",
    "methods": "prunus.method.registry",
    "prune": "prunus.run",
}

__all__ = [
    "CLSE",
    "MMR",
    "CheckReport",
    "Cut",
    "Edit",
    "EvoPrune",
    "Fixed",
    "Influence",
    "Knockout",
    "Method",
    "OneShot",
    "PromptEndWarning",
    "PrunusError",
    "PrunusFileError",
    "PrunusStateError",
    "PrunusTypeError",
    "Random",
    "Report",
    "Run",
    "Selection",
    "Stepwise",
    "TraceEntry",
    "Uniform",
    "View",
    "VisiPruner",
    "__version__",
    "attach",
    "check",
    "detach",
    "load",
    "methods",
    "prune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'prunus' has no attribute {name!r}")
    check_transformers()  # before anything of ours meets an unknown one
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
