"""InternViT as transformers builds it: tiles one by one, patches that are joined behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.families.towers.base import Arrangement, Call, Frames
from prunus.families.towers.vit import ViT
from prunus.grid import AnyGrid, Grid


class InternViT(ViT):
    """``[tiles, 1 + patches, D]``, a CLS token in front. A visual token is a square of patches,
    which stay and go together: behind the tower the model joins them by their places in the tile,
    so that features go on at full length.

    Args:
        tower: an ``InternVLVisionModel``.
        tile: the grid of a tile, in visual tokens.
        side: patches along a side of a visual token.
    """

    takes_bias = False  # its blocks are given nothing but states
    whole = True

    def __init__(self, tower: Any, tile: Grid, side: int) -> None:
        self.blocks = list(tower.encoder.layer)
        self.read, self.lead, self.has_summary = len(self.blocks), 1, True
        self._exit, self._tile, self._side = tower.layernorm, tile, side

    @property
    def exit(self) -> nn.Module:
        found: nn.Module = self._exit
        return found

    def norm(self, number: int) -> nn.Module:
        norm: nn.Module = self._block(number).layernorm_after
        return norm

    def _attention(self, number: int) -> Any:
        return self._block(number).attention

    def taps(self, number: int) -> Mapping[str, nn.Module]:
        attention = self._attention(number)
        return {"query": attention.q_norm, "key": attention.k_norm}

    def grids(self, call: Mapping[str, Any]) -> list[Grid]:
        return [self._tile] * len(call["pixel_values"])

    def frames(self, grids: Sequence[AnyGrid]) -> list[Frames]:
        members = [(image, tile) for image, own in enumerate(grids) for tile in range(own.pieces)]
        return [Frames(self._tile, members)]

    def inside(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        side, tile, tiles = self._side, self._tile, len(frames[0].members)
        line = tile.cols * side  # patches of a row
        down = torch.arange(tile.rows)[:, None, None, None] * side + torch.arange(side)[:, None]
        across = torch.arange(tile.cols)[:, None, None] * side + torch.arange(side)
        patches = (down * line + across).reshape(tile.size, -1)
        each = 1 + patches.numel()
        slots = torch.arange(tiles)[:, None, None] * each + 1 + patches
        return Arrangement(tiles * each, [slots])

    def features(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        return self.inside(frames, call)

    def projected(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        tiles, size = len(frames[0].members), self._tile.size
        slots = torch.arange(tiles * size).view(tiles, size, 1)
        return Arrangement(tiles * size, [slots])

    def enter(self, number: int, call: Call, rows: Tensor | None, bias: Tensor | None) -> Call:
        return call
