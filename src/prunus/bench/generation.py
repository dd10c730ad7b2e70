"""One answer of a fixed length, timed from pixels to its last token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from prunus.bench.splits import Splits, watching
from prunus.families import Family


@dataclass(frozen=True)
class Timed:
    """Seconds of one call.

    Attributes:
        stamps: from its start until each token was there.
        parts: of the time until the first; they add up to it.
    """

    stamps: list[float]
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def first(self) -> float:
        """Time to the first token."""
        return self.stamps[0]

    @property
    def each(self) -> float | None:
        """Mean time of each further token; None where there is none."""
        more = len(self.stamps) - 1
        return (self.stamps[-1] - self.stamps[0]) / more if more else None


class Stamper:
    """A streamer for ``generate`` that stamps each token: transformers has it on the CPU then."""

    def __init__(self, splits: Splits) -> None:
        self._splits, self._asked = splits, False

    def put(self, value: Any) -> None:
        """Called with the prompt first, then with each token of the batch."""
        if self._asked:
            self._splits.stamp()
        self._asked = True

    def end(self) -> None:
        """Called once, behind the last."""


@contextmanager
def timer(family: Family) -> Iterator[Callable[[Mapping[str, Tensor], int], Timed]]:
    """What times answers of ``family``'s model: call it with inputs and a number of tokens, inside
    of a pruned block or outside."""
    running: list[Splits] = []

    def timed(inputs: Mapping[str, Tensor], tokens: int) -> Timed:
        splits = Splits(family.top.device)
        running.append(splits)
        try:
            splits.start()
            family.top.generate(
                **inputs,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                streamer=Stamper(splits),
            )
        finally:
            running.pop()
        stamps = splits.stamps()
        return Timed(stamps, splits.parts())

    with watching(family, lambda: running[-1] if running else None):
        yield timed
