"""The tower of Kimi-K2.5 as transformers builds it: packed, full attention in a clip, rotary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunus.families.towers.base import Arrangement, Frames
from prunus.families.towers.packed import Packed
from prunus.grid import Grid


@dataclass(frozen=True)
class Pooled(Grid):
    """The grid of an image or clip, each of whose cells is the mean over ``times`` frames."""

    times: int = 1

    @property
    def shows(self) -> int:
        return self.times


class Kimi(Packed):
    """``[patches, D]``, all clips one behind the other, the patches of each frame row by row.

    A visual token is a square of patches in all frames of its clip, which become one behind a last
    norm, clip by clip at full length (``whole``).

    Args:
        tower: a ``Kimi_K25VisionModel``.
        grids: reads the tower's ``grid_thw``.
    """

    whole = True

    def __init__(self, tower: Any, grids: Any) -> None:
        self.blocks = list(tower.layers)
        self.read = len(self.blocks)
        self._grids, self._norm = grids, tower.final_layernorm
        self._down, self._across = tower.merge_kernel_size

    @property
    def exit(self) -> nn.Module:
        norm: nn.Module = self._norm
        return norm

    def frames(self, grids: Sequence[Grid]) -> list[Frames]:
        members: dict[Grid, list[tuple[int, int]]] = {}
        for clip, grid in enumerate(grids):
            members.setdefault(grid, []).append((clip, 0))
        return [Frames(grid, those) for grid, those in members.items()]

    def inside(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        sizes: list[list[int]] = call["grid_thw"].tolist()  # patches, which may not make tokens
        starts = [0]
        for times, rows, cols in sizes:
            starts.append(starts[-1] + times * rows * cols)
        slots = []
        for group in frames:
            own = [starts[clip] + self._rows(group.grid, *sizes[clip]) for clip, _ in group.members]
            slots.append(torch.stack(own))
        return Arrangement(starts[-1], slots)

    def _rows(self, grid: Grid, times: int, rows: int, cols: int) -> torch.Tensor:
        """Int64 ``[N, u]``: rows of the tokens of one clip of ``times x rows x cols`` patches."""
        down = torch.arange(grid.rows * self._down).view(grid.rows, 1, 1, self._down, 1)
        across = torch.arange(grid.cols * self._across).view(1, grid.cols, 1, 1, self._across)
        time = torch.arange(times).view(1, 1, -1, 1, 1)
        places: torch.Tensor = time * rows * cols + down * cols + across
        return places.reshape(grid.size, -1)
