"""When a few tokens carry what a prompt needs of an image, which ones, and when they are done with.

VisiPruner's rules (arXiv 2510.17205, section 3) for one sample, on the leave-one-out influence of
its visual tokens (:mod:`prunus.signals.influence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prunus.signals.topk import stable_topk

Event = Literal["", "filter", "forced", "exit"]


@dataclass(frozen=True)
class Rule:
    """Cosines below which a layer filters, and at which it no longer needs what was kept; after
    ``count`` such layers, ``consecutive`` or in all, vision leaves (0: never)."""

    filter_below: float
    exit_from: float
    count: int
    consecutive: bool


@dataclass
class Progress:
    """How far one sample is: ``filtered`` once, ``passes`` exit layers, ``done`` for good."""

    filtered: bool
    passes: int = 0
    done: bool = False

    def step(self, lowest: float, rule: Rule, forced: bool) -> Event:
        """What happens behind a layer whose lowest cosine of any token is ``lowest``; ``forced``
        makes it the filtering layer if there was none."""
        if self.done:
            return ""
        if not self.filtered:
            found = lowest < rule.filter_below
            self.filtered = found or forced
            self.done = self.filtered and not rule.count
            return "filter" if found else "forced" if forced else ""
        if lowest >= rule.exit_from:
            self.passes += 1
        elif rule.consecutive:
            self.passes = 0
        self.done = self.passes >= rule.count
        return "exit" if self.done else ""


def critical(changes: Sequence[Tensor], bound: float | Tensor, least: int) -> list[Tensor]:
    """Which tokens of each image of one sample have a change above ``bound`` (strictly), bool
    ``[n]``; of all images together at least the ``least`` largest, ties by lower index.

    Args:
        changes: float32 ``[n]`` for each image.
    """
    joined = torch.cat(list(changes))
    mask = joined > bound
    if least:
        largest = stable_topk(joined[None], min(least, len(joined)))[0]
        mask = torch.where(mask.sum() < least, mask.index_fill(0, largest, True), mask)
    return list(mask.split([len(change) for change in changes]))
