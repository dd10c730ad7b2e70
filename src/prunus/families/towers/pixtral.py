"""The tower of Pixtral as transformers builds it: packed, a mask between images, rotary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.pixtral.modeling_pixtral import apply_rotary_pos_emb

from prunus.errors import PrunusError
from prunus.families.towers.base import Arrangement, Call, Frames, Tower
from prunus.grid import Grid
from prunus.signals.attention import column_mean


class Pixtral(Tower):
    """``[1, patches, D]``, all images one behind the other, the patches of each row by row.

    What belongs together is told by a block-diagonal mask, or, to FlashAttention, by where images
    end. A merged token keeps the rotary angles of the one that stays: angles have no mean.

    Args:
        tower: a ``PixtralVisionModel``.
        read: blocks that reach the projector.
        merge: patches along a side of a visual token.
        whole: see :class:`~prunus.families.towers.base.Tower`.
        grids: reads the tower's own arguments.
    """

    takes_bias = True
    takes_lengths = True

    def __init__(self, tower: Any, read: int, merge: int, whole: bool, grids: Any) -> None:
        self.blocks = list(tower.transformer.layers)
        self.read, self.whole = read, whole
        self._merge, self._patch, self._grids = merge, tower.patch_size, grids

    def _block(self, number: int) -> Any:
        return self.blocks[number]

    def norm(self, number: int) -> nn.Module:
        norm: nn.Module = self._block(number).ffn_norm
        return norm

    def mlp(self, number: int) -> nn.Module:
        mlp: nn.Module = self._block(number).feed_forward
        return mlp

    def taps(self, number: int) -> Mapping[str, nn.Module]:
        attention = self._block(number).attention
        return {"query": attention.q_proj, "key": attention.k_proj}

    def grids(self, call: Mapping[str, Any]) -> list[Grid]:
        grids: list[Grid] = self._grids(call)
        return grids

    def frames(self, grids: Sequence[Grid]) -> list[Frames]:
        members: dict[Grid, list[tuple[int, int]]] = {}
        for image, grid in enumerate(grids):
            members.setdefault(grid, []).append((image, 0))
        return [Frames(grid, those) for grid, those in members.items()]

    def inside(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        sizes = self._sizes(call)  # patches down and across, which need not make whole tokens
        starts = [0]
        for rows, cols in sizes:
            starts.append(starts[-1] + rows * cols)
        side = torch.arange(self._merge)
        slots = []
        for group in frames:
            down = torch.arange(group.grid.rows)[:, None, None, None] * self._merge
            across = torch.arange(group.grid.cols)[None, :, None, None] * self._merge
            down, across = down + side[:, None], across + side
            own = [
                (starts[image] + down * sizes[image][1] + across).reshape(group.grid.size, -1)
                for image, _ in group.members
            ]
            slots.append(torch.stack(own))
        return Arrangement(starts[-1], slots)

    def features(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        return self.inside(frames, call)

    def projected(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        sizes = {image: group.grid.size for group in frames for image, _ in group.members}
        starts = [0]
        for image in range(len(sizes)):
            starts.append(starts[-1] + sizes[image])
        slots = [
            torch.stack([starts[image] + torch.arange(group.grid.size) for image, _ in those])
            for group in frames
            for those in [group.members]
        ]
        return Arrangement(starts[-1], [own[..., None] for own in slots])

    def _sizes(self, call: Mapping[str, Any]) -> list[tuple[int, int]]:
        """Patches down and across of each image of a call of the tower."""
        return [
            (height // self._patch, width // self._patch) for height, width in image_sizes(call)
        ]

    def enter(self, number: int, call: Call, rows: Tensor | None, bias: Tensor | None) -> Call:
        if rows is None and bias is None:
            return call
        (states, mask, *rest), kwargs = call
        if rows is not None:
            if mask is None:
                kwargs = kwargs | _fewer(kwargs, rows)
            else:
                at = rows.to(mask.device)
                mask = mask[:, :, at][:, :, :, at]
            cos, sin = (table[rows.to(table.device)] for table in kwargs["position_embeddings"])
            kwargs = {**kwargs, "position_embeddings": (cos, sin)}
        if bias is not None:
            mask = mask + bias.to(mask)
        return (states, mask, *rest), kwargs

    def keys(
        self,
        number: int,
        seen: Mapping[str, Tensor],
        call: Call,
        rotary: bool = False,
        joined: bool = False,
    ) -> Tensor:
        query, key = (self._heads(number, seen[name]) for name in ("query", "key"))
        if rotary:
            key = self._turned(query, key, call)[1]
        return key[0].transpose(0, 1).flatten(1) if joined else key.mean(dim=1)[0]

    def received(
        self, number: int, seen: Mapping[str, Tensor], call: Call, bias: Tensor | None
    ) -> tuple[Tensor, float]:
        """A token is only seen from its own image. What it receives there is summed over the
        queries, not averaged, so that images of different sizes compare."""
        attention = self._block(number).attention
        query, key = (self._heads(number, seen[name]) for name in ("query", "key"))
        query, key = self._turned(query, key, call)
        sizes = _segments(call)
        added = [None] * len(sizes) if bias is None else bias[None].split(sizes, dim=1)
        found, macs = [], 0.0
        for q, k, own in zip(query.split(sizes, 2), key.split(sizes, 2), added, strict=True):
            mean = column_mean(q, k, float(attention.scaling), own)
            found.append(mean[0] * q.shape[2])
            macs += float(q.shape[2] ** 2 * attention.embed_dim)
        return torch.cat(found), macs

    def _heads(self, number: int, projected: Tensor) -> Tensor:
        """``[1, S, D]`` to ``[1, H, S, d]``."""
        heads: int = self._block(number).attention.num_heads
        split: Tensor = projected.unflatten(-1, (heads, -1))  # type: ignore[no-untyped-call]
        return split.transpose(1, 2)

    @staticmethod
    def _turned(query: Tensor, key: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Behind rotary embedding."""
        cos, sin = call[1]["position_embeddings"]
        turned: tuple[Tensor, Tensor] = apply_rotary_pos_emb(query, key, cos, sin, unsqueeze_dim=0)
        return turned


def image_sizes(call: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Height and width in pixels of the images of a call that has ``pixel_values [n, 3, H, W]``,
    padded on the right and below where ``image_sizes [n, 2]`` tells.

    Raises:
        PrunusError: sizes of another shape.
    """
    sizes = call.get("image_sizes")
    if sizes is None:
        images, _, height, width = call["pixel_values"].shape
        return [(height, width)] * images
    table = torch.as_tensor(sizes)
    if table.ndim != 2 or table.shape[1] != 2:
        raise PrunusError(
            f"image_sizes has shape {tuple(table.shape)}: give one row (height, width) for each "
            "image, as the processor does"
        )
    return [(int(height), int(width)) for height, width in table.tolist()]


def _fewer(kwargs: Mapping[str, Any], rows: Tensor) -> dict[str, Tensor]:
    """Where images end, in rows, when those ``rows`` are left; every image keeps some."""
    names = ("cu_seq_lens_q", "cu_seq_lens_k")
    ends = {name: kwargs[name] for name in names}
    return {
        name: torch.searchsorted(rows.to(end.device), end.long()).to(end.dtype)
        for name, end in ends.items()
    }


def _segments(call: Call) -> list[int]:
    """Rows of each image."""
    (_, mask, *_), kwargs = call
    if mask is None:
        sizes: list[int] = kwargs["cu_seq_lens_k"].diff().tolist()
        return sizes
    sees = mask[0, 0] > torch.finfo(mask.dtype).min / 2  # proportional attention adds to zeros
    first = sees.byte().argmax(1)
    found: list[int] = first.unique_consecutive(return_counts=True)[1].tolist()
    return found
