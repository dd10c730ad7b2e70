"""Book-keeping of the encoder stage: which tokens are left, and what each of them stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.engine.tower.seats import Unpooled
from prunus.errors import PrunusError
from prunus.families.towers.base import Frames
from prunus.method import Selection


@dataclass
class Reduced:
    """What the tower left of one image; indices are those of its original tokens.

    Attributes:
        kept: int64 ``[B]``, ascending; merged_into: int64 ``[N]``.
        scores: float32 ``[N]`` or None.
        steps: for each merging block its number, sources and destinations.
        by_size: merged tokens are means of original ones, not of those that met.
        unpooled: where they go around the model's pooling.
    """

    kept: Tensor
    merged_into: Tensor
    scores: Tensor | None
    steps: list[tuple[int, Tensor, Tensor]]
    by_size: bool
    unpooled: Unpooled | None = None

    def untouched(self, size: int) -> Reduced:
        """This, of an image of ``size`` tokens of which nothing was merged."""
        every = torch.arange(size, device=self.kept.device)
        return Reduced(every, every, None, [], self.by_size)

    @staticmethod
    def joined(frames: Sequence[Reduced]) -> Reduced:
        """Frames of one video, or tiles of one image, as one, tokens counted through."""
        if len(frames) == 1:
            return frames[0]
        size = len(frames[0].merged_into)

        def through(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat([part + number * size for number, part in enumerate(parts)])

        scores = [frame.scores for frame in frames if frame.scores is not None]
        steps = [
            (
                block,
                through([frame.steps[at][1] for frame in frames]),
                through([frame.steps[at][2] for frame in frames]),
            )
            for at, (block, _, _) in enumerate(frames[0].steps)
        ]
        return Reduced(
            through([frame.kept for frame in frames]),
            through([frame.merged_into for frame in frames]),
            torch.cat(scores) if scores else None,
            steps,
            frames[0].by_size,
        )

    def numbered(self, order: Tensor) -> Reduced:
        """The same with other numbers for tokens: int64 ``[N]``, by those that they have."""
        ends = torch.where(self.merged_into < 0, -1, order[self.merged_into.clamp(min=0)])
        places = order.argsort()
        return Reduced(
            order[self.kept].sort().values,
            ends[places],
            None if self.scores is None else self.scores[places],
            [(block, order[gone], order[into]) for block, gone, into in self.steps],
            self.by_size,
        )


class Group:
    """Frames of equal size on their way through the blocks.

    Attributes:
        removals: tokens that each block that is read removes.
        present: int64 ``[G, T]``, ascending original indices; sizes: float32 ``[G, T]``.
        sound: bool on the device: every answer so far was a merge. Read once, at the end.
    """

    def __init__(self, frames: Frames, removals: Sequence[int], device: torch.device) -> None:
        self.frames, self.removals = frames, list(removals)
        count, tokens = len(frames.members), frames.grid.size
        self.present = torch.arange(tokens, device=device).repeat(count, 1)
        self.sizes = torch.ones(count, tokens, dtype=torch.float32, device=device)
        self.carry: Tensor | None = None
        self.scores: Tensor | None = None
        self.by_size = True
        self.sound = torch.ones((), dtype=torch.bool, device=device)
        self._into = self.present.clone()
        self._steps: list[tuple[int, Tensor, Tensor]] = []

    @property
    def pending(self) -> bool:
        """Whether some block did not merge what it was to."""
        return sum(1 for count in self.removals if count) != len(self._steps)

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

    def nothing(self) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`merge` returns where nothing is merged."""
        none = self.present[:, :0]
        return none, none, self.sizes[:, :0]

    def merge(self, block: int, chosen: Selection) -> tuple[Tensor, Tensor, Tensor]:
        """Carry out ``chosen``; sources and destinations as original indices ``[G, r]``, and the
        share ``[G, r]`` of the merged token that each source makes up.

        Raises:
            PrunusError: indices of another shape than was asked for.
        """
        groups, tokens = self.present.shape
        wanted = (groups, self.removals[block])
        source, destination, lost = _pairs(chosen, tokens, wanted)
        source, destination = source.to(self.present.device), destination.to(self.present.device)
        stays = torch.ones_like(self.present, dtype=torch.bool).scatter(1, source, False)
        left = tokens - wanted[1]
        self.sound = self.sound & (stays.sum(1) == left).all()
        self.sound = self.sound & stays.gather(1, destination).all()

        self.by_size = chosen.by_size
        arriving = torch.ones_like(self.sizes).gather(1, source)
        if lost is not None:  # a token that is dropped arrives nowhere
            arriving = arriving * ~lost.to(arriving.device)
        added = self.sizes.gather(1, source) * arriving
        sizes = self.sizes.scatter_add(1, destination, added)
        if chosen.by_size:
            share = added / sizes.gather(1, destination)
        else:
            meeting = torch.ones_like(self.sizes).scatter_add(1, destination, arriving)
            share = arriving / meeting.gather(1, destination)

        gone, into = self.present.gather(1, source), self.present.gather(1, destination)
        moved = torch.arange(self._into.shape[1], device=gone.device).repeat(groups, 1)
        ends = into if lost is None else into.masked_fill(lost.to(into.device), -1)
        found = moved.scatter(1, gone, ends).gather(1, self._into.clamp(min=0))
        self._into = torch.where(self._into < 0, self._into, found)
        self._steps.append((block, gone, into))
        if chosen.scores is not None and self.scores is None:
            full = self.sizes.new_full((groups, self._into.shape[1]), float("nan"))
            self.scores = full.scatter(1, self.present, chosen.scores.float().to(full.device))

        # Survivors in order, without reading a count from the device: losers go to a spare column.
        place = torch.where(stays, stays.long().cumsum(1) - 1, left).clamp(max=left)
        order = torch.arange(tokens, device=place.device).repeat(groups, 1)
        spare = torch.zeros(groups, left + 1, dtype=torch.long, device=place.device)
        rest = spare.scatter(1, place, order)[:, :left]
        self.present, self.sizes = self.present.gather(1, rest), sizes.gather(1, rest)
        self.carry = None
        if chosen.carry is not None:
            carry = chosen.carry.to(rest.device)
            at = rest.view(*rest.shape, *[1] * (carry.ndim - 2))
            self.carry = carry.gather(1, at.expand(*rest.shape, *carry.shape[2:]))
        return gone, into, share

    def reduced(self, number: int) -> Reduced:
        """What is left of frame ``number`` of this group."""
        return Reduced(
            self.present[number],
            self._into[number],
            None if self.scores is None else self.scores[number],
            [(block, gone[number], into[number]) for block, gone, into in self._steps],
            self.by_size,
        )


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
    one: Callable[[Group, int], Any],
    joined: Callable[[list[Any], int], Any],
) -> list[Any]:
    """``one(group, number)`` of every frame, frames of one of so many ``images`` ``joined``."""
    parts: dict[int, dict[int, Any]] = {}
    for group in groups:
        for number, (image, frame) in enumerate(group.frames.members):
            parts.setdefault(image, {})[frame] = one(group, number)
    return [
        joined([parts[image][frame] for frame in sorted(parts[image])], image)
        for image in range(images)
    ]
