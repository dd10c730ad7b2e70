"""The tower of VideoLLaMA 3 as transformers builds it: packed, full attention in a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunus.families.towers.packed import Packed
from prunus.grid import Grid


class VideoLlama(Packed):
    """As :class:`~prunus.families.towers.packed.Packed`, with blocks built as those of SigLIP.

    How many patches make up a visual token is said for each image. They become one behind a last
    norm, as their mean, image by image at full length (``whole``).

    Args:
        tower: a ``VideoLlama3VisionModel``.
        grids: reads the tower's own arguments.
    """

    whole = True

    def __init__(self, tower: Any, grids: Any) -> None:
        self.blocks = list(tower.encoder.layers)
        self.read = len(self.blocks)
        self._grids, self._norm = grids, tower.post_layernorm
        self._patch = int(tower.config.patch_size)

    def _attention(self, number: int) -> Any:
        return self.blocks[number].self_attn

    def norm(self, number: int) -> nn.Module:
        norm: nn.Module = self._block(number).layer_norm2
        return norm

    @property
    def exit(self) -> nn.Module:
        norm: nn.Module = self._norm
        return norm

    def grids(self, call: Mapping[str, Any]) -> list[Grid]:
        grids: list[Grid] = self._grids(call)
        return grids

    def _patches(self, grid: Grid) -> int:
        return (grid.cell[0] // self._patch) ** 2
