"""HiRED: the overview of a picture says which of its tiles get how much of the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid, Grid
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import TowerAttention
from prunus.signals.pieces import best_of_pieces, left_of_pieces, pieces_of
from prunus.signals.shares import shares

_LAST, _FIRST = TowerAttention(), TowerAttention(block=0)


@dataclass(frozen=True)
class HiRED(Method):
    """HiRED (arXiv 2408.10945), before the language model: pictures cut into tiles, of which one
    shows the whole picture (LLaVA-NeXT's overview, the thumbnail of InternVL and others).

    A share ``alpha`` of the budget is the overview's. Of the overview, as many tokens as make up
    the rest of it (``1 - alpha``), those with most attention from CLS in the tower's *first* block,
    are counted in each tile's cell, and the rest of the budget is shared by these counts. All tiles
    and the overview then keep their tokens with most attention from CLS in the last block that is
    read. Without CLS both are attention received. Where there are no such tiles (LLaVA-1.5) the
    whole budget goes by CLS, frame by frame in videos.

    The released code cuts the overview's tokens into runs in reading order instead of cells: two by
    two tiles are four stripes. So does this; ``fix_cells`` counts in the cells. What rounding and
    tokens that are padding leave over there is lost; here the budget is met, by the largest
    remainders, and what a tile cannot take goes to the others, at last to the overview (ours).
    """

    name = "hired"
    paper = "arXiv 2408.10945 (AAAI 2025)"
    summary = "tiles share the budget by the overview, then by CLS"
    presets = {
        "paper": {"keep": 0.2, "alpha": 0.5},
        "paper-10": {"keep": 0.1, "alpha": 0.5},
        "192": {"keep": 192},
        "128": {"keep": 128},
        "64": {"keep": 64},
    }

    keep: Keep = field(default=0.2, metadata={"help": "tokens per image, or share of them"})
    alpha: float = field(default=0.5, metadata={"help": "the overview's share of these, 0 to 1"})
    fix_cells: bool = field(
        default=False, metadata={"help": "count where tiles lie, not in runs of tokens"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if not 0 <= self.alpha <= 1:
            raise PrunusError(f"alpha={self.alpha}: give a share from 0 to 1")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (_LAST, _FIRST))]

    def select(self, stage: int, view: View) -> Selection:
        grid, attention = view.grid, view[_LAST]
        overview, cells = _arranged(grid)
        if not cells:
            return self.rank(stage, view, attention, each=True)
        attention = self.checked(stage, view, attention)
        inside = pieces_of(grid, view.present) == overview
        left = left_of_pieces(grid, view.present)
        first = self.checked(stage, view, view[_FIRST]).masked_fill(~inside, -torch.inf)
        size = grid.parts[_part_of(grid, overview)].size
        most = [min(int(size * (1 - self.alpha)), own[overview]) for own in left]
        rank = first.sort(dim=1, descending=True, stable=True).indices.argsort(dim=1)
        best = rank < torch.tensor(most, device=rank.device)[:, None]
        cell = self._cells(grid, overview, len(cells)).to(rank.device)[view.present]
        counted = torch.zeros(len(rank), len(cells), dtype=torch.long, device=rank.device)
        found = counted.scatter_add(1, cell, best.long()).tolist()
        count = min(view.count or 0, view.present.shape[1])
        counts = [
            self._shared(count, own, overview, cells, weights)
            for own, weights in zip(left, found, strict=True)
        ]
        return Selection(best_of_pieces(attention, grid, view.present, counts), attention)

    def _shared(
        self, count: int, left: Sequence[int], overview: int, cells: range, weights: list[int]
    ) -> list[int]:
        """Of an image, how many of ``count`` tokens each piece keeps."""
        room = [left[number] for number in cells]
        own = min(int(count * self.alpha), left[overview])
        rest = min(count - own, sum(room))
        found = [0] * len(left)
        found[overview] = count - rest
        found[cells.start : cells.stop] = shares(rest, weights, room)
        return found

    def _cells(self, grid: AnyGrid, overview: int, tiles: int) -> Tensor:
        """Int64 ``[N]``: of the overview's tokens, which tile each is counted for; else 0."""
        number = _part_of(grid, overview)
        part, start = grid.parts[number], sum(own.size for own in grid.parts[:number])
        token = torch.arange(part.size)
        if self.fix_cells:
            down, across = self._arrangement(grid)
            row, col = token // part.cols, token % part.cols
            own = row * down // part.rows * across + col * across // part.cols
        else:
            own = token * tiles // part.size
        found = torch.zeros(grid.size, dtype=torch.long)
        found[start : start + part.size] = own
        return found

    def _arrangement(self, grid: AnyGrid) -> tuple[int, int]:
        """Tiles down and across."""
        (tiles,) = [own for own in grid.resolutions if _count(own) > 1] or [grid.resolutions[-1]]
        if len(tiles) > 1:
            raise PrunusError(
                f"{self.name}: fix_cells counts where the tiles of a picture lie, but how they are "
                "arranged is not known: give the model image_sizes, or leave fix_cells off"
            )
        bands = tiles[0].tiles
        return len(bands), len(bands[0])


def _arranged(grid: AnyGrid) -> tuple[int, range]:
    """The number of the piece that shows a whole picture, and those of its tiles; none where there
    is no such piece beside others."""
    pieces = [_count(own) for own in grid.resolutions]
    if grid.frames > 1 or len(pieces) != 2 or 1 not in pieces:
        return 0, range(0)
    first = pieces.index(1)
    return (0, range(1, 1 + pieces[1])) if first == 0 else (pieces[0], range(pieces[0]))


def _part_of(grid: AnyGrid, overview: int) -> int:
    """The number of the part that the ``overview``, a piece, is: the first or the last."""
    return 0 if overview == 0 else len(grid.parts) - 1


def _count(parts: Sequence[Grid]) -> int:
    """How many pieces."""
    return sum(part.pieces for part in parts)
