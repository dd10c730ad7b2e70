"""prunus: fewer visual tokens for multimodal language models, on unmodified transformers."""

from prunus.load import load
from prunus.method import Cut, Method, Selection, View, methods
from prunus.prune import Run, prune
from prunus.pruners.clse import CLSE
from prunus.pruners.fixed import Fixed
from prunus.pruners.random import Random
from prunus.pruners.uniform import Uniform
from prunus.trace import Report, TraceEntry

__version__ = "0.1.0"

__all__ = [
    "CLSE",
    "Cut",
    "Fixed",
    "Method",
    "Random",
    "Report",
    "Run",
    "Selection",
    "TraceEntry",
    "Uniform",
    "View",
    "load",
    "methods",
    "prune",
]
