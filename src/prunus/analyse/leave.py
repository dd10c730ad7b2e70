"""All visual tokens leave the decoder at one layer: is vision still needed there?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from prunus.analyse.probe import Unlisted
from prunus.errors import PrunusTypeError
from prunus.method import Cut, Method, Selection, View


@dataclass(frozen=True)
class Leave(Unlisted, Method):
    """Removes every visual token at the input of ``layer`` (VisiPruner, arXiv 2510.17205, calls it
    "discard"). Earlier layers saw them all, and their caches keep them. Placeholders that belong
    to no place in the image (a CLS token) stay, as under every method."""

    layer: int

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(self.layer)]

    def select(self, stage: int, view: View) -> Selection:
        none = torch.zeros(view.present.shape[0], 0, dtype=torch.int64, device=view.present.device)
        return Selection(none)

    def nominal(self, original: int) -> float | None:
        return 0.0

    def neutral(self) -> Method:
        raise PrunusTypeError("removing everything has no neutral setting")
