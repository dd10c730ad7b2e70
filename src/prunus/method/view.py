"""What a pruning method is shown: visual tokens of some images, and the signals it asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method.signals import Signal, Source, States

T = TypeVar("T")


class Facts(Protocol):
    """What a method may know about a model when it is bound to it."""

    @property
    def depth(self) -> int:
        """Decoder layers that run."""

    @property
    def feature_width(self) -> int:
        """Channels of :class:`~prunus.method.signals.Features`."""

    @property
    def text_width(self) -> int:
        """Channels of a word embedding."""

    @property
    def tower(self) -> nn.Module:
        """The vision encoder."""

    @property
    def reads_tower(self) -> bool:
        """Whether :class:`~prunus.method.signals.Features` are what enters the projector."""

    @property
    def tower_takes_bias(self) -> bool:
        """Whether a bias can be added to the logits of the vision tower's attention."""

    @property
    def tower_has_summary(self) -> bool:
        """Whether the vision tower has a CLS token."""

    @property
    def architecture(self) -> Mapping[str, str | int]:
        """Kind and sizes of the model, whatever its weights."""

    def fingerprint(self) -> Tensor:
        """Float32 numbers that differ from model to model."""


@dataclass(frozen=True)
class View:
    """What a method sees of a group of ``G`` images that share one grid and one token count ``n``.
    Inside the vision tower an image is one frame of a video.

    ``view[signal]`` is the value of a signal that the cut named; :attr:`states` is always there.

    Attributes:
        grid: where the original ``N = grid.size`` tokens lie.
        present: int64 ``[G, n]``, ascending original indices of the tokens that are still there.
        sizes: float32 ``[G, n]``, how many original tokens each of them stands for.
        count: how many tokens of each image are to be left at this stage by the method's budget;
            inside the tower, how many are to go at this block; None where it finds its own count.
        owners: for each of the G images, ``(sample, image within the sample)``; inside the tower
            ``(image of the call, frame of it)``.
        samples: number of samples in the batch (before beams).
        depth: number of decoder layers.
        memo: what the method wants to remember of this prompt from stage to stage; one dictionary
            for all views of the prompt, empty at first.
        kind: inside the tower what the call is for, "image" or "video"; None elsewhere, or where
            the model's own forward did not make it.
        block, blocks: inside the tower, 0-based number of the block, and how many are read.
        carry: inside the tower what the method gave as :attr:`Selection.carry` at the last merging
            block, for the tokens present now; None at the first.
    """

    grid: AnyGrid
    present: Tensor
    sizes: Tensor
    count: int | None
    owners: Sequence[tuple[int, int]]
    samples: int
    depth: int
    memo: dict[Any, Any]
    source: Source = field(repr=False)
    sees: tuple[Signal[Any], ...] = ()
    kind: str | None = None
    block: int = 0
    blocks: int = 0
    carry: Tensor | None = None
    _read: dict[Signal[Any], Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, signal: Signal[T]) -> T:
        """The value of ``signal``, computed once.

        Raises:
            PrunusError: the cut did not ask for it, so that it was not kept.
        """
        if signal not in self._read:
            if signal not in self.sees and signal != States():
                names = ", ".join(map(str, self.sees)) or "none"
                raise PrunusError(
                    f"{signal} was not asked for: name it in Cut(sees=...), which has {names}"
                )
            self._read[signal] = signal.read(self.source)
        found: T = self._read[signal]
        return found

    @property
    def states(self) -> Tensor:
        """Hidden states ``[G, n, D]`` at this place, in the model's dtype."""
        return self[States()]

    @property
    def intact(self) -> bool:
        """Whether every original token of the grid is still there."""
        return self.present.shape[1] == self.grid.size


def by_sample(views: Sequence[View]) -> dict[int, dict[int, tuple[int, int]]]:
    """For each sample and each of its images, which view and which row of it. Of beams, which
    choose alike, the first row speaks."""
    found: dict[int, dict[int, tuple[int, int]]] = {}
    for number, view in enumerate(views):
        for row, (sample, image) in enumerate(view.owners):
            found.setdefault(sample, {}).setdefault(image, (number, row))
    return found
