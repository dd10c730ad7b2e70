"""What methods look at of a vision tower: kept per image, for the tokens that were there then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from prunus.engine.prompt import Image
from prunus.errors import PrunusError
from prunus.families.towers.base import Tower
from prunus.method.signals import Block

#: What is kept of a block, by name: attention of the CLS token's row, of all rows, or of the CLS
#: token's row with all heads joined; keys before and behind rotary embedding, by head or joined.
Name = Literal["summary", "all", "joined", "keys", "rotary", "keys-joined", "rotary-joined"]
Key = tuple[str, int]
"""Kind of an image ("image", "video") and its number among those of its kind."""


@dataclass(frozen=True)
class Rows:
    """Values ``[T, ...]`` of the original tokens ``present`` (int64 ``[T]``, ascending)."""

    present: Tensor
    values: Tensor

    def of(self, present: Tensor) -> Tensor:
        """Those of the tokens ``present``, which are some of them."""
        own = self.present.to(self.values.device)
        return self.values[torch.searchsorted(own, present.to(own.device))]

    @staticmethod
    def joined(frames: Sequence[Rows], size: int) -> Rows:
        """Frames, or tiles, of ``size`` tokens as one input."""
        present = [one.present + number * size for number, one in enumerate(frames)]
        return Rows(torch.cat(present), torch.cat([one.values for one in frames]))

    def numbered(self, order: Tensor) -> Rows:
        """The same with other numbers for tokens: int64 ``[N]``, by those that they have."""
        present, by = order[self.present].sort()
        return Rows(present, self.values[by.to(self.values.device)])


@dataclass
class TowerSeen:
    """Of one prompt, by image; ``tower`` is what was looked at, if anything was."""

    tower: Tower | None = None
    projected_from: dict[Key, Rows] = field(default_factory=dict)
    summaries: dict[Key, Tensor] = field(default_factory=dict)
    blocks: dict[int, dict[Name, dict[Key, Rows]]] = field(default_factory=dict)

    def holds(self, image: Image) -> bool:
        """Whether what entered the projector was kept of ``image``."""
        return (image.kind, image.order) in self.projected_from

    def features(self, images: Sequence[Image]) -> Tensor:
        """``[G, n, D]``, what entered the projector."""
        return _stacked(self.projected_from, images, "features")

    def summary(self, images: Sequence[Image]) -> Tensor | None:
        """``[G, 1, D]``, the CLS feature, where there is one (a video has one for each frame)."""
        if any((image.kind, image.order) not in self.summaries for image in images):
            return None
        return torch.stack([self.summaries[image.kind, image.order] for image in images])

    def block(self, number: Block, images: Sequence[Image]) -> SeenBlock:
        """A block that was looked at."""
        at = -1 if self.tower is None else self.tower.number(number)
        if at not in self.blocks:
            raise PrunusError(
                f"block {number} of the vision tower was not kept: name a signal of it in "
                "Cut(sees=...)"
            )
        found = self.blocks[at]
        return SeenBlock(lambda name: _stacked(found.get(name, {}), images, name))


@dataclass(frozen=True)
class SeenBlock:
    """One block for G images (:class:`prunus.method.signals.Tower`); ``take`` gives ``[G, n, ...]``
    by name."""

    take: Callable[[Name], Tensor]

    def attention(self, rows: Literal["summary", "all", "joined"]) -> Tensor:
        """See :class:`~prunus.method.signals.Tower`."""
        return self.take(rows)

    def keys(self, rotary: bool, joined: bool) -> Tensor:
        """See :class:`~prunus.method.signals.Tower`."""
        return self.take(keys_name(rotary, joined))


def keys_name(rotary: bool, joined: bool) -> Name:
    """The name of keys behind rotary embedding, of heads side by side."""
    if joined:
        return "rotary-joined" if rotary else "keys-joined"
    return "rotary" if rotary else "keys"


def _stacked(kept: dict[Key, Rows], images: Sequence[Image], what: str) -> Tensor:
    missing = [image for image in images if (image.kind, image.order) not in kept]
    if missing:
        raise PrunusError(
            f"the vision tower's {what} of image {missing[0].image} of sample {missing[0].sample} "
            "were not kept: name the signal in Cut(sees=...), and pass pixel values instead of "
            "features computed before"
        )
    return torch.stack([kept[image.kind, image.order].of(image.present) for image in images])
