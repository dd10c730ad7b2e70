"""Where VisiPruner would filter, and by what: looked up in a run that removes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunus.analyse.probe import Onlooker
from prunus.method import Cut, Selection, View
from prunus.pruners.visipruner import VisiPruner
from prunus.signals.influence import Influence


@dataclass(frozen=True)
class Filtering:
    """The filtering layer of one prompt, and what it shows of the prompt's visual tokens.

    Attributes:
        layer: the filtering layer; None where no layer is one.
        lowest: lowest cosine in that layer, or else in all layers that were looked at.
        change: float32 ``[n]`` (CPU), L2 changes of the visual tokens of all images in that layer,
            or else in the last layer that was looked at.
        output: L2 norm of the whole attention output there.
    """

    layer: int | None
    lowest: float
    change: Tensor
    output: float


@dataclass(frozen=True)
class FilterProbe(Onlooker):
    """Looks where ``method`` would (VisiPruner, arXiv 2510.17205, section 3), notes in ``found``
    what it sees of each sample, and keeps everything."""

    method: VisiPruner
    found: dict[int, Filtering] = field(default_factory=dict, compare=False)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return self.method.cuts(depth)

    def choose(self, stage: int, views: Sequence[View]) -> Sequence[Selection]:
        [signal] = self.cuts(views[0].depth)[stage].sees
        layer = signal.layer or 0
        rows: dict[int, list[tuple[Influence, int]]] = {}
        for view in views:
            influence = view[signal]
            for row, (sample, _) in enumerate(view.owners):
                rows.setdefault(sample, []).append((influence, row))
        for sample, own in rows.items():
            if sample not in self.found or self.found[sample].layer is None:
                self._note(sample, layer, own)
        return [Selection.everything(view) for view in views]

    def _note(self, sample: int, layer: int, own: Sequence[tuple[Influence, int]]) -> None:
        lowest = min(float(influence.cosine[row].amin()) for influence, row in own)
        change = torch.cat([influence.change[row] for influence, row in own]).cpu()
        first, row = own[0]  # the output is the same for all images of a sample
        output = float(first.output[row])
        if lowest < self.method.filter_below:
            self.found[sample] = Filtering(layer, lowest, change, output)
        else:
            before = self.found[sample].lowest if sample in self.found else math.inf
            self.found[sample] = Filtering(None, min(lowest, before), change, output)
