"""Pictures of one visual input: one for each slice of a video, or part of an image in tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from prunus.errors import PrunusError
from prunus.grid import AnyGrid, Grid


@dataclass(frozen=True)
class Pane:
    """The tokens of one picture: ``grid`` (one frame), and the ``first`` of them among those of the
    whole input."""

    grid: Grid
    first: int

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """``[rows, cols]`` of ``values`` ``[N]``, one for each token of the input."""
        own: NDArray[Any] = values[self.first : self.first + self.grid.size]
        return own.reshape(self.grid.rows, self.grid.cols)


def panes(grid: AnyGrid) -> list[Pane]:
    """All pictures of an input, in the order of its tokens."""
    found, first = [], 0
    for part in grid.parts:
        one = Grid(1, part.rows, part.cols, part.cell, part.area)
        for _ in range(part.frames):
            found.append(Pane(one, first))
            first += one.size
    return found


def pane_of(grid: AnyGrid, number: int) -> Pane:
    """Picture ``number`` of an input.

    Raises:
        PrunusError: it has no such picture.
    """
    found = panes(grid)
    if not 0 <= number < len(found):
        raise PrunusError(
            f"the trace knows {len(found)} slices or parts, picture {number + 1} is one more"
        )
    return found[number]
