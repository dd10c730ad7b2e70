"""What a method may be able to do besides choosing tokens: small protocols, one ability each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from prunus.method.places import Edit
from prunus.method.selection import Selection
from prunus.method.signals import Signal
from prunus.method.view import View


@runtime_checkable
class MergesInTower(Protocol):
    """Merges (or drops) tokens inside the vision tower, between attention and MLP of its blocks."""

    @property
    def proportional(self) -> bool:
        """Whether the tower's attention is to count a merged token as often as the tokens it stands
        for: the logarithm of its size is added to the logits (ToMe's proportional attention)."""

    @property
    def in_tower(self) -> tuple[Signal[Any], ...] | None:
        """What :meth:`merge` looks at in a block, besides the states; None: it does not merge."""

    def merges(self, blocks: int, original: int, count: int | None) -> Sequence[int]:
        """Tokens that each of the ``blocks`` tower blocks that reach the projector removes of an
        image (a frame of a video) that has ``original``, so that ``count`` are left.

        Raises:
            PrunusError: that cannot be reached; raised before anything runs.
        """

    def merge(self, view: View) -> Selection:
        """Which ``view.count`` tokens go at this block, and into which others."""


@runtime_checkable
class RepeatsMerges(Protocol):
    """Merges in the tower what was merged before, as many tokens of each image as there were."""

    def repeated(self, blocks: int, original: int, kind: str | None, image: int) -> Sequence[int]:
        """Tokens that each of the ``blocks`` removes of every frame (of ``original``) of an
        ``image`` of the tower's call for a ``kind`` (None: of the only one).

        Raises:
            PrunusError: there was no such image.
        """


@runtime_checkable
class EditsAttention(Protocol):
    """Takes away attention inside decoder layers, or visual tokens from caches."""

    def edits(self, depth: int) -> Mapping[int, Edit]:
        """Decoder layers whose attention is edited while the prompt is read."""

    def forgets(self, depth: int) -> Sequence[int]:
        """Decoder layers whose cache loses all visual tokens once the prompt was read."""


@runtime_checkable
class Trained(Protocol):
    """Does nothing without weights that were trained for the model."""

    @property
    def loaded(self) -> object | None:
        """The weights, once they are in memory; None before."""


@dataclass(frozen=True)
class Seen:
    """What one sample's prefill had in it: ``original`` visual tokens and ``text`` tokens, and the
    visual tokens ``per_layer``."""

    original: int
    text: int
    per_layer: Sequence[int]


@runtime_checkable
class Published(Protocol):
    """Has cost figures of its own."""

    def published(self, shape: Any, seen: Seen) -> dict[str, float]:
        """Cost figures of one sample as the method's paper defines them, by name; ``shape`` is the
        decoder's :class:`~prunus.families.shapes.DecoderShape`."""


@runtime_checkable
class Remarking(Protocol):
    """Has something to say of a run that its numbers do not tell."""

    def remark(self, depth: int) -> str | None:
        """In one line, on a decoder of ``depth`` layers; None: nothing. Reports show it as a
        note."""


def tower_part(method: object) -> MergesInTower | None:
    """``method``, if it merges inside the vision tower."""
    if isinstance(method, MergesInTower) and method.in_tower is not None:
        return method
    return None
