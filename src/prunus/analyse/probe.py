"""A look inside the dense model: signals of every decoder layer, and nothing removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from prunus.method import Cut, Method, Selection, View
from prunus.method.signals import Attention, LeaveOneOut, Signal, States, ValueNorm


class Unlisted:
    """Names the methods of this package. They are tools: a class that defines a name of its own
    would be listed among the methods that can be chosen by name."""

    name: ClassVar[str] = "analysis"


class Onlooker(Unlisted, Method):
    """Looks at the last prompt token's attention, and keeps everything."""

    def neutral(self) -> Method:
        return self


@dataclass(frozen=True)
class Probe(Onlooker):
    """Keeps every token, and calls ``note(layer, view)`` at the input of every decoder layer from 1
    on, once per group of images that share a grid.

    There ``view.states`` are the states that enter ``layer``; those that entered layer 0 and
    ``layer - 1`` are there, and attention, influence and value norms of ``layer - 1``. So attention
    of the last layer is the one thing that is never seen.
    """

    note: Callable[[int, View], None] = field(compare=False)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(layer, _behind(layer - 1)) for layer in range(1, depth)]

    def select(self, stage: int, view: View) -> Selection:
        self.note(stage + 1, view)
        return Selection.everything(view)


def _behind(layer: int) -> tuple[Signal[Any], ...]:
    """What there is to see once ``layer`` has run."""
    return States(0), States(layer), Attention(layer), LeaveOneOut(layer), ValueNorm(layer)
