"""Where the visual tokens of one image (or video) lie."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from prunus.errors import PrunusAttributeError, PrunusError

Box = tuple[int, float, float, float, float]
"""``(frame, left, top, right, bottom)`` of a token, in pixels."""

Seams = tuple[tuple[int, ...], tuple[int, ...]]
"""Rows, and columns, with which another tile begins, ascending, without 0."""


@dataclass(frozen=True)
class Grid:
    """Row-major arrangement of one image's visual tokens: token ``n = (t * rows + y) * cols + x``.

    ``cell`` is what one token covers in the image *as the model saw it* (after the processor's
    resizing and cropping): ``(height, width)`` in pixels. ``area`` is where the grid lies in the
    original picture, ``(left, top, width, height)`` in its pixels, where the family knows; it may
    reach over the picture's edge into padding. ``seams`` are where tiles meet that the vision tower
    saw one by one, if the grid is several of them put together.
    """

    frames: int
    rows: int
    cols: int
    cell: tuple[int, int]
    area: tuple[float, float, float, float] | None = None
    seams: Seams = ((), ())

    @property
    def size(self) -> int:
        """Number of visual tokens."""
        return self.frames * self.rows * self.cols

    @property
    def shows(self) -> int:
        """Frames of a video that it stands for, of a family that makes several inputs of one."""
        return self.frames

    @property
    def parts(self) -> tuple[Grid, ...]:
        """The rectangular grids that this is made of: itself."""
        return (self,)

    @property
    def resolutions(self) -> tuple[tuple[Grid, ...], ...]:
        """As :attr:`Tiles.resolutions`: the one that there is."""
        return ((self,),)

    @property
    def tiles(self) -> tuple[tuple[Grid, ...], ...]:
        """What the vision tower saw one by one: tiles, row by row; only one without seams."""
        down = (0, *self.seams[0], self.rows)
        across = (0, *self.seams[1], self.cols)
        return tuple(
            tuple(
                Grid(self.frames, bottom - top, right - left, self.cell)
                for left, right in itertools.pairwise(across)
            )
            for top, bottom in itertools.pairwise(down)
        )

    @property
    def pieces(self) -> int:
        """How many frames and tiles the vision tower sees one by one."""
        return self.frames * (len(self.seams[0]) + 1) * (len(self.seams[1]) + 1)

    def box(self, index: int) -> Box:
        """Where token ``index`` lies: in pixels of the original picture if ``area`` is known, else
        of the seen image."""
        if not 0 <= index < self.size:
            raise PrunusError(f"token index {index} is outside the grid of {self.size} tokens")
        frame, rest = divmod(index, self.rows * self.cols)
        row, col = divmod(rest, self.cols)
        if self.area is None:
            height, width = self.cell
            return frame, col * width, row * height, (col + 1) * width, (row + 1) * height
        left, top, wide, high = self.area
        across = [left + wide * place / self.cols for place in (col, col + 1)]
        down = [top + high * place / self.rows for place in (row, row + 1)]
        return frame, across[0], down[0], across[1], down[1]


@dataclass(frozen=True)
class Tiles:
    """The visual tokens of one input that is cut into several rectangular ``parts`` (an overview
    and the tiles of an image, say): those of the first part, then those of the next.

    Everything that needs no more than the number of tokens and where each lies takes a
    :class:`Grid` or this; what needs rows and columns goes through :attr:`parts`.

    Where it is not known how tiles are arranged, each is a part of its own, and the first ``loose``
    parts are the tiles of the picture at one resolution. ``padded`` says that parts without an area
    reach over the picture's edge, and nobody knows how far.

    Raises:
        PrunusError: no part, parts with different numbers of frames, or more loose ones than parts.
    """

    parts: tuple[Grid, ...]
    loose: int = 0
    padded: bool = False

    def __post_init__(self) -> None:
        if not self.parts or len({part.frames for part in self.parts}) > 1:
            raise PrunusError(
                f"tiles of {[part.frames for part in self.parts]} frames: give one part or more, "
                "all of equally many frames"
            )
        if not 0 <= self.loose <= len(self.parts):
            raise PrunusError(f"loose={self.loose}: there are {len(self.parts)} parts")

    @property
    def resolutions(self) -> tuple[tuple[Grid, ...], ...]:
        """The parts by resolution, at each of which they show the whole picture (tiles, and a
        thumbnail)."""
        tiles, rest = self.parts[: self.loose], self.parts[self.loose :]
        return (*((tiles,) if tiles else ()), *((part,) for part in rest))

    @property
    def shows(self) -> int:
        """As :attr:`Grid.shows`."""
        return self.parts[0].shows

    @property
    def frames(self) -> int:
        """Temporal slices of each part; 1 for an image."""
        return self.parts[0].frames

    @property
    def size(self) -> int:
        """Number of visual tokens."""
        return sum(part.size for part in self.parts)

    @property
    def pieces(self) -> int:
        """As :attr:`Grid.pieces`, of all parts."""
        return sum(part.pieces for part in self.parts)

    def part_of(self, index: int) -> tuple[int, int]:
        """The number of the part that token ``index`` lies in, and its index in there."""
        rest = index
        for number, part in enumerate(self.parts):
            if 0 <= rest < part.size:
                return number, rest
            rest -= part.size
        raise PrunusError(f"token index {index} is outside the tiles of {self.size} tokens")

    def box(self, index: int) -> Box:
        """Where token ``index`` lies, as :meth:`Grid.box` of its part has it."""
        number, own = self.part_of(index)
        return self.parts[number].box(own)

    @property
    def rows(self) -> NoReturn:
        """There is no one number of rows."""
        self._refuse("rows")

    @property
    def cols(self) -> NoReturn:
        """There is no one number of columns."""
        self._refuse("cols")

    @property
    def cell(self) -> NoReturn:
        """There is no one size of a cell."""
        self._refuse("cell")

    def _refuse(self, name: str) -> NoReturn:
        shapes = " and ".join(f"{part.rows}x{part.cols}" for part in self.parts)
        raise PrunusAttributeError(
            f"this image is no single grid and has no one {name!r}: it is made of parts (tiles) of "
            f"{shapes} tokens. Go through grid.parts, whose tokens stand one part behind the other"
        )


AnyGrid = Grid | Tiles
"""Where the tokens of one visual input lie."""


@lru_cache(maxsize=256)
def tile_order(grid: AnyGrid) -> tuple[int, ...]:
    """The tokens of ``grid`` as the vision tower sees them, piece by piece: frames, and in these
    tiles in reading order, each row by row."""
    found: list[int] = []
    first = 0
    for part in grid.parts:
        down, across = (0, *part.seams[0], part.rows), (0, *part.seams[1], part.cols)
        for frame in range(part.frames):
            start = first + frame * part.rows * part.cols
            for top, bottom in itertools.pairwise(down):
                for left, right in itertools.pairwise(across):
                    found += [
                        start + row * part.cols + col
                        for row in range(top, bottom)
                        for col in range(left, right)
                    ]
        first += part.size
    return tuple(found)
