"""Book-keeping of the encoder stage: which tokens are left, and what each of them stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from prunus.engine.tower.rows import Pairs
from prunus.engine.tower.seats import Unpooled
from prunus.errors import PrunusError
from prunus.families.towers.base import Frames
from prunus.method import Selection
from prunus.signals.topk import firsts_of

Step = tuple[int, Tensor, Tensor]
"""A merging block's number, and its sources and destinations, original tokens."""


@dataclass
class Reduced:
    """What the tower left of one image; indices are those of its original tokens.

    Attributes:
        kept: int64 ``[B]``, ascending; sizes: float32 ``[B]``, how many each stands for;
            merged_into: int64 ``[N]``.
        scores: float32 ``[N]`` or None.
        steps: what each merging block did, once somebody looks.
        by_size: merged tokens are means of original ones, not of those that met.
        unpooled: where they go around the model's pooling.
    """

    kept: Tensor
    sizes: Tensor
    merged_into: Tensor
    scores: Tensor | None
    steps: Callable[[], list[Step]]
    by_size: bool
    unpooled: Unpooled | None = None

    def untouched(self, size: int) -> Reduced:
        """This, of an image of ``size`` tokens of which nothing was merged."""
        every = torch.arange(size, device=self.kept.device)
        return Reduced(every, self.sizes.new_ones(size), every, None, list, self.by_size)

    @staticmethod
    def joined(frames: Sequence[Reduced]) -> Reduced:
        """Frames of one video, or tiles of one image, as one, tokens counted through."""
        if len(frames) == 1:
            return frames[0]
        size = len(frames[0].merged_into)

        def through(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat([part + number * size for number, part in enumerate(parts)])

        def steps() -> list[Step]:
            each = zip(*[frame.steps() for frame in frames], strict=True)
            return [
                (same[0][0], through([one[1] for one in same]), through([one[2] for one in same]))
                for same in each
            ]

        scores = [frame.scores for frame in frames if frame.scores is not None]
        return Reduced(
            through([frame.kept for frame in frames]),
            torch.cat([frame.sizes for frame in frames]),
            through([frame.merged_into for frame in frames]),
            torch.cat(scores) if scores else None,
            steps,
            frames[0].by_size,
        )

    def numbered(self, order: Tensor) -> Reduced:
        """The same with other numbers for tokens: int64 ``[N]``, by those that they have."""
        ends = torch.where(self.merged_into < 0, -1, order[self.merged_into.clamp(min=0)])
        places, kept = order.argsort(), order[self.kept].sort()

        def steps() -> list[Step]:
            return [(block, order[gone], order[into]) for block, gone, into in self.steps()]

        return Reduced(
            kept.values,
            self.sizes[kept.indices],
            ends[places],
            None if self.scores is None else self.scores[places],
            steps,
            self.by_size,
        )


class Group:
    """Frames of equal size on their way through the blocks.

    Attributes:
        removals: tokens that each block that is read removes.
        present: int64 ``[G, T]``, ascending original indices; sizes: float32 ``[G, T]``.
    """

    def __init__(self, frames: Frames, removals: Sequence[int], device: torch.device) -> None:
        self.frames, self.removals = frames, list(removals)
        count, tokens = len(frames.members), frames.grid.size
        self.present = torch.arange(tokens, device=device).repeat(count, 1)
        self.sizes = torch.ones(count, tokens, dtype=torch.float32, device=device)
        self.carry: Tensor | None = None
        self.scores: Tensor | None = None
        self.by_size = True
        self._sound: list[Tensor] = []
        self._slot = self.present  # of every original token, where what it is part of is now
        self._lost: Tensor | None = None  # bool: those that were dropped
        self._steps: list[tuple[int, Tensor, Tensor, Tensor]] = []

    @property
    def pending(self) -> bool:
        """Whether some block did not merge what it was to."""
        return sum(1 for count in self.removals if count) != len(self._steps)

    @property
    def sound(self) -> bool:
        """Whether every answer was a merge; read from the device, at the end."""
        return not self._sound or bool(torch.stack(self._sound).all())

    def check(self, name: str, blocks: int) -> None:
        """Raise PrunusError unless the numbers of removals can be carried out."""
        left = self.frames.grid.size
        if len(self.removals) != blocks:
            raise PrunusError(
                f"{name}.merges gave {len(self.removals)} numbers for {blocks} blocks of the tower"
            )
        for block, count in enumerate(self.removals):
            if not 0 <= count < left:
                raise PrunusError(f"{name}: block {block} cannot remove {count} of {left} tokens")
            left -= count

    def merge(self, block: int, chosen: Selection) -> Pairs:
        """Carry out ``chosen``.

        Raises:
            PrunusError: indices of another shape than was asked for.
        """
        groups, tokens = self.present.shape
        wanted = (groups, self.removals[block])
        source, destination, lost = _pairs(chosen, tokens, wanted)
        source, destination = source.to(self.present.device), destination.to(self.present.device)
        lost = None if lost is None else lost.to(self.present.device)
        left = tokens - wanted[1]
        stays = torch.ones_like(self.present, dtype=torch.bool).scatter_(1, source, False)
        running = stays.cumsum(1)
        rest, place = firsts_of(running, left), (running - 1).clamp_(max=left - 1)
        # So many stay if all sources are different; destinations must be among them.
        self._sound += [(running[:, -1] == left).all(), stays.gather(1, destination).all()]

        self.by_size, before = chosen.by_size, self.sizes
        if not chosen.by_size:
            before = torch.ones_like(before)
        arriving = before.gather(1, source)
        if lost is not None:  # a token that is dropped arrives nowhere
            arriving = arriving * ~lost
        meeting = before.scatter_add(1, destination, arriving)
        weight = arriving / meeting.gather(1, destination)
        sizes = meeting
        if not chosen.by_size:
            added = self.sizes.gather(1, source)
            sizes = self.sizes.scatter_add(1, destination, added if lost is None else added * ~lost)

        owner = place.scatter_(1, source, place.gather(1, destination))
        if lost is not None:
            went = torch.zeros_like(stays).scatter_(1, source, lost).gather(1, self._slot)
            self._lost = went if self._lost is None else self._lost | went
        self._slot = owner.gather(1, self._slot)
        self._steps.append((block, self.present, source, destination))
        if chosen.scores is not None and self.scores is None:
            full = self.sizes.new_full(self._slot.shape, float("nan"))
            self.scores = full.scatter(1, self.present, chosen.scores.float().to(full.device))

        self.present, self.sizes = self.present.gather(1, rest), sizes.gather(1, rest)
        self.carry = None
        if chosen.carry is not None:
            carry = chosen.carry.to(rest.device)
            at = rest.view(*rest.shape, *[1] * (carry.ndim - 2))
            self.carry = carry.gather(1, at.expand(*rest.shape, *carry.shape[2:]))
        return Pairs(source, destination, weight, rest)

    def reduced(self) -> list[Reduced]:
        """What is left of each frame."""
        into = self.present.gather(1, self._slot)
        into = into if self._lost is None else into.masked_fill(self._lost, -1)

        @cache
        def steps() -> list[Step]:
            return [(n, there.gather(1, s), there.gather(1, d)) for n, there, s, d in self._steps]

        def own(number: int) -> list[Step]:
            return [(block, gone[number], into[number]) for block, gone, into in steps()]

        scores = [None] * len(into) if self.scores is None else self.scores.unbind()
        return [
            Reduced(kept, sizes, ends, seen, partial(own, number), self.by_size)
            for number, (kept, sizes, ends, seen) in enumerate(
                zip(self.present.unbind(), self.sizes.unbind(), into.unbind(), scores, strict=True)
            )
        ]


def _pairs(
    chosen: Selection, tokens: int, wanted: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sources and destinations int64 ``[G, r]`` of an answer, and bool, which sources are dropped
    instead (None: none are).

    Raises:
        PrunusError: indices of another shape than ``wanted``.
    """
    if chosen.pairs is not None:
        for given in chosen.pairs:
            if given.shape != wanted:
                raise PrunusError(f"a merge of shape {tuple(given.shape)}, expected {wanted}")
        return *chosen.pairs, None
    kept, into = chosen.kept, chosen.into
    if not isinstance(kept, Tensor) or kept.shape != (wanted[0], tokens - wanted[1]):
        raise PrunusError(f"kept must be one tensor of {tokens - wanted[1]} tokens of each frame")
    steps = torch.arange(tokens, device=kept.device).repeat(len(kept), 1)
    stays = torch.zeros_like(steps, dtype=torch.bool).scatter(1, kept, True)
    source = torch.sort(stays.byte(), dim=1, stable=True).indices[:, : wanted[1]]
    if into is None:
        lost = torch.ones_like(source, dtype=torch.bool)
        return source, kept[:, :1].expand_as(source), lost
    if not isinstance(into, Tensor) or into.shape != steps.shape:
        raise PrunusError(f"into must be one tensor of {tokens} tokens of each frame")
    destination = into.gather(1, source)
    lost = destination < 0
    return source, torch.where(lost, kept[:, :1], destination), lost


def by_image(
    groups: Sequence[Group],
    images: int,
    each: Callable[[Group], Sequence[Any]],
    joined: Callable[[list[Any], int], Any],
) -> list[Any]:
    """What ``each`` gives of a group, one for every frame of it; frames of one of so many
    ``images`` ``joined``."""
    parts: dict[int, dict[int, Any]] = {}
    for group in groups:
        for (image, frame), own in zip(group.frames.members, each(group), strict=True):
            parts.setdefault(image, {})[frame] = own
    return [
        joined([parts[image][frame] for frame in sorted(parts[image])], image)
        for image in range(images)
    ]
