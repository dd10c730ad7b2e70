"""Average pooling: new tokens, each the mean of a piece of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Features
from prunus.signals.windows import windows


@dataclass(frozen=True)
class Pooling(Method):
    """Adaptive average pooling over the grid, before the language model: the control of every
    method that merges.

    The grid is cut into bands of rows, and each band into columns, with the bounds of adaptive
    pooling (24 x 24 to 8 x 8 for 64 tokens). Where the number is no product of two, some bands have
    a column more, so that exactly so many tokens are left. A new token takes the place of the upper
    left one of those that it is the mean of. Frames of a video, and tiles, share the number.
    """

    name = "pooling"
    paper = "control (adaptive average pooling)"
    summary = "new tokens, each the mean of a piece of the image"
    kind = "merge"

    keep: Keep = field(default=1 / 9, metadata={"help": "tokens per image, or share of them"})
    space: Literal["model", "tower"] = field(
        default="model", metadata={"help": "means of projected features | of the tower's"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def cuts(self, depth: int) -> Sequence[Cut]:
        sees = (Features(),) if self.space == "tower" else ()
        return [Cut(None, sees, space=self.space, whole=True)]

    def select(self, stage: int, view: View) -> Selection:
        count = min(view.count or 0, view.present.shape[1])
        sheets = [(part.rows, part.cols) for part in view.grid.parts for _ in range(part.frames)]
        pieces = windows(sheets, count)
        mix = torch.zeros(count, view.grid.size)
        for number, piece in enumerate(pieces):
            mix[number, piece] = 1.0 / len(piece)
        mix = mix.to(view.present.device)
        kept = torch.tensor([piece[0] for piece in pieces], device=mix.device)
        order = kept.argsort()
        groups = len(view.owners)
        return Selection(kept[order].expand(groups, -1), mix=[mix[order]] * groups)
