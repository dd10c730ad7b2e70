"""The tower of Qwen2-VL as transformers builds it: packed, full attention in a frame, rotary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

from prunus.families.towers.base import Arrangement, Call, Frames, Tower
from prunus.grid import Grid
from prunus.signals.attention import column_mean


class Packed(Tower):
    """``[patches, D]``, all images one behind the other, the patches of a visual token together.

    Blocks are told by ``cu_seqlens`` where a frame (or a window in it) ends, which is rebuilt from
    what is left. A merged token keeps the rotary angles of the one that stays: angles have no mean.

    Args:
        tower: a ``Qwen2VisionTransformerPretrainedModel``.
        grids: reads the tower's ``grid_thw``.
    """

    takes_lengths = True

    def __init__(self, tower: Any, grids: Any) -> None:
        self.blocks = list(tower.blocks)
        self.read = len(self.blocks)
        self._grids = grids
        self._unit = int(tower.spatial_merge_size**2)

    def _block(self, number: int) -> Any:
        return self.blocks[number]

    def _attention(self, number: int) -> Any:
        return self.blocks[number].attn

    def norm(self, number: int) -> nn.Module:
        norm: nn.Module = self._block(number).norm2
        return norm

    def mlp(self, number: int) -> nn.Module:
        mlp: nn.Module = self._block(number).mlp
        return mlp

    def taps(self, number: int) -> Mapping[str, nn.Module]:
        attention = self._attention(number)
        if hasattr(attention, "qkv"):
            return {"qkv": attention.qkv}
        return {"query": attention.q_proj, "key": attention.k_proj}

    def grids(self, call: Mapping[str, Any]) -> list[Grid]:
        grids: list[Grid] = self._grids(call["grid_thw"])
        return grids

    def frames(self, grids: Sequence[Grid]) -> list[Frames]:
        members: dict[Grid, list[tuple[int, int]]] = {}
        for image, grid in enumerate(grids):
            frame = Grid(1, grid.rows, grid.cols, grid.cell)
            members.setdefault(frame, []).extend((image, t) for t in range(grid.frames))
        return [Frames(grid, those) for grid, those in members.items()]

    def inside(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        return self._arranged(frames, self._patches)

    def features(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        return self.inside(frames, call)

    def projected(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        return self._arranged(frames, lambda grid: 1)

    def _patches(self, grid: Grid) -> int:
        """How many patches make up a token of a frame."""
        return self._unit

    def _arranged(self, frames: Sequence[Frames], rows: Callable[[Grid], int]) -> Arrangement:
        """Where the ``rows`` of each token lie, one frame behind the other."""
        order = sorted(
            (member, number, place)
            for number, group in enumerate(frames)
            for place, member in enumerate(group.members)
        )
        slots = [
            torch.empty(len(g.members), g.grid.size, rows(g.grid), dtype=torch.long) for g in frames
        ]
        start = 0
        for _, number, place in order:
            grid = frames[number].grid
            own = torch.arange(grid.size * rows(grid)).view(grid.size, -1)
            slots[number][place, self._order(grid)] = start + own
            start += own.numel()
        return Arrangement(start, slots)

    def _order(self, grid: Grid) -> Tensor:
        """Int64 ``[N]``: the tokens of one frame in the order in which the tower has them."""
        return torch.arange(grid.size)

    def enter(self, number: int, call: Call, rows: Tensor | None, bias: Tensor | None) -> Call:
        if rows is None:
            return call
        args, kwargs = call
        ends: Tensor = kwargs["cu_seqlens"]
        # How many of the rows before each end are left; those that lost all of theirs vanish.
        left = torch.searchsorted(rows.to(ends.device), ends.long()).unique_consecutive()
        cos, sin = (table[rows.to(table.device)] for table in kwargs["position_embeddings"])
        kwargs = {**kwargs, "cu_seqlens": left.to(ends.dtype), "position_embeddings": (cos, sin)}
        return args, kwargs

    def keys(
        self,
        number: int,
        seen: Mapping[str, Tensor],
        call: Call,
        rotary: bool = False,
        joined: bool = False,
    ) -> Tensor:
        query, key = self._heads(number, seen)
        if rotary:
            key = apply_rotary_pos_emb_vision(query, key, *call[1]["position_embeddings"])[1]
        return key.flatten(1) if joined else key.mean(dim=1)

    def received(
        self, number: int, seen: Mapping[str, Tensor], call: Call, bias: Tensor | None
    ) -> tuple[Tensor, float]:
        """A token is only seen from its own frame, or window of it. What it receives there is
        summed over the queries, not averaged, so that those of different sizes compare."""
        _, kwargs = call
        query, key = self._heads(number, seen)
        query, key = apply_rotary_pos_emb_vision(query, key, *kwargs["position_embeddings"])
        sizes = kwargs["cu_seqlens"].diff().tolist()
        scaling, found, macs = float(self._attention(number).scaling), [], 0.0
        for q, k in zip(query.split(sizes), key.split(sizes), strict=True):
            mean = column_mean(q.transpose(0, 1)[None], k.transpose(0, 1)[None], scaling)
            found.append(mean[0] * len(q))
            macs += float(len(q) * q.numel())
        return torch.cat(found), macs

    def _heads(self, number: int, seen: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Queries and keys ``[rows, H, d]`` before rotary embedding."""
        heads = self._attention(number).num_heads
        if "qkv" in seen:
            packed = seen["qkv"].view(len(seen["qkv"]), 3, heads, -1)
            return packed[:, 0], packed[:, 1]
        return seen["query"].unflatten(-1, (heads, -1)), seen["key"].unflatten(-1, (heads, -1))
