"""The numbers of one prompt, from which its report is drawn up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
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
    idle: Collection[int] = ()
    element_size: int = 4

    def of(self, sample: int) -> Record:
        """What a prompt of only this ``sample`` would have left; of what choosing cost, which is
        not counted sample by sample, an equal share."""

        def own(layers: Sequence[Sequence[int]]) -> list[Sequence[int]]:
            return [[layer[sample]] for layer in layers]

        return replace(
            self,
            # Where a method decides by itself, a stage at which nothing happened to it is none.
            entries=[
                entry.of(sample)
                for entry in self.entries
                if entry.labels is None or any(entry.labels[sample])
            ],
            samples=1,
            original=[self.original[sample]],
            text=[self.text[sample]],
            images=[self.images[sample]],
            per_layer=own(self.per_layer),
            resident=own(self.resident),
            cached=own(self.cached),
            cached_dense=own(self.cached_dense),
            nominal=None if self.nominal is None else [self.nominal[sample]],
            method_macs=self.method_macs / self.samples,
            behind=[self.behind[sample]] if self.behind else (),
            idle=[0] if sample in self.idle else (),
        )
