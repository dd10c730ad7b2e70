"""The numbers of one prompt, from which its report is drawn up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prunus.grid import AnyGrid
from prunus.results.trace import TraceEntry

if TYPE_CHECKING:
    from prunus.method import Method


@dataclass
class Record:
    """Everything kept of the last prompt: the raw material of trace and report.

    By layer and sample: ``per_layer``, visual tokens that ran; ``resident``, those in the cache
    behind the prompt; ``cached``, all tokens there, and ``cached_dense`` in the unmodified model.
    """

    entries: list[TraceEntry] = field(default_factory=list)
    samples: int = 0
    original: Sequence[int] = ()
    text: Sequence[int] = ()
    images: Sequence[Sequence[AnyGrid]] = ()  # grids per sample
    per_layer: list[Sequence[int]] = field(default_factory=list)
    resident: list[Sequence[int]] = field(default_factory=list)
    cached: list[Sequence[int]] = field(default_factory=list)
    cached_dense: list[Sequence[int]] = field(default_factory=list)
    nominal: Sequence[float] | None = None
    method_macs: float = 0.0
    behind: Sequence[int] = ()  # text tokens of the prompt behind the first visual one, per sample
    methods: Sequence[Method] = ()
    idle: int = 0  # samples in which a method that decides by itself found nothing to do
    element_size: int = 4
