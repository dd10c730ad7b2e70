"""Towers that see tiles one by one, whose patches are joined in squares behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.families.towers.base import Arrangement, Call, Frames
from prunus.families.towers.vit import ViT
from prunus.grid import AnyGrid, Grid


class Squares(ViT):
    """``[tiles, lead + patches, D]``, of blocks as SigLIP has them. A visual token is a square of
    patches, which stay and go together: behind the tower the model joins them by their places in
    the tile, so that features go on at full length.

    Args:
        blocks: all of them; exit: the norm behind the last, where features have passed that.
        tile: the grid of a tile, in visual tokens.
        side: patches along a side of a visual token.
        lead: rows in front of a tile's patches (1 for a CLS token).
        read: how many blocks are read; None: all.
    """

    takes_bias = False
    whole = True

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        exit: nn.Module | None,
        tile: Grid,
        side: int,
        lead: int = 0,
        read: int | None = None,
    ) -> None:
        self.blocks = list(blocks)
        self.read = len(self.blocks) if read is None else read
        self.lead, self.has_summary = lead, lead > 0
        self._exit, self._tile, self._side = exit, tile, side

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
        each = self.lead + patches.numel()
        slots = torch.arange(tiles)[:, None, None] * each + self.lead + patches
        return Arrangement(tiles * each, [slots])

    def features(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        return self.inside(frames, call)

    def projected(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        tiles, size = len(frames[0].members), self._tile.size
        slots = torch.arange(tiles * size).view(tiles, size, 1)
        return Arrangement(tiles * size, [slots])

    def enter(self, number: int, call: Call, rows: Tensor | None, bias: Tensor | None) -> Call:
        (states, *rest), kwargs = call
        if rows is None or not rest or rest[0] is None:
            return call
        mask = rest[0].expand(len(states), -1, -1, -1)  # of patches, which none of is hidden
        each = self.lead + self._tile.size * self._side**2
        places = (rows.to(mask.device) % each).view(len(states), 1, -1, 1)
        mask = mask.gather(2, places.expand(-1, mask.shape[1], -1, mask.shape[3]))
        places = places.transpose(2, 3).expand(-1, mask.shape[1], mask.shape[2], -1)
        return (states, mask.gather(3, places), *rest[1:]), kwargs


class InternViT(Squares):
    """An ``InternVLVisionModel``: a CLS token in front; its blocks are given nothing but states."""

    def __init__(self, tower: Any, tile: Grid, side: int) -> None:
        super().__init__(tower.encoder.layer, tower.layernorm, tile, side, lead=1)

    def norm(self, number: int) -> nn.Module:
        norm: nn.Module = self._block(number).layernorm_after
        return norm

    def _attention(self, number: int) -> Any:
        return self._block(number).attention

    def taps(self, number: int) -> Mapping[str, nn.Module]:
        attention = self._attention(number)
        return {"query": attention.q_norm, "key": attention.k_norm}
