"""The towers of CLIP and SigLIP as transformers builds them: batched, full attention, no rotary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.families.towers.base import Arrangement, Call, Frames, Tower
from prunus.grid import AnyGrid, Grid
from prunus.signals.attention import column_mean, last_row


class ViT(Tower):
    """``[images, lead + tokens, D]``, ``lead`` 1 where a CLS token stands in front.

    Args:
        tower: a ``CLIPVisionModel`` or ``SiglipVisionModel``.
        read: blocks that reach the projector.
        lead, features_lead: rows in front of an image's tokens between blocks, and of what enters
            the projector.
        grids: reads the tower's ``pixel_values``.
        exit: a norm behind the last block, where that is read.
        beside: whether the CLS token is as wide as what enters the projector, beside which it may
            stand.
    """

    takes_bias = True

    def __init__(
        self,
        tower: Any,
        read: int,
        lead: int,
        features_lead: int,
        grids: Any,
        exit: nn.Module | None = None,
        beside: bool = True,
    ) -> None:
        self.blocks = list(tower.encoder.layers)
        self.read, self.lead, self.features_lead = read, lead, features_lead
        self.has_summary = lead > 0 and beside
        self._grids, self._exit = grids, exit

    @property
    def exit(self) -> nn.Module | None:
        return self._exit

    def _block(self, number: int) -> Any:
        return self.blocks[number]

    def _attention(self, number: int) -> Any:
        return self._block(number).self_attn

    def norm(self, number: int) -> nn.Module:
        norm: nn.Module = self._block(number).layer_norm2
        return norm

    def mlp(self, number: int) -> nn.Module:
        mlp: nn.Module = self._block(number).mlp
        return mlp

    def taps(self, number: int) -> Mapping[str, nn.Module]:
        attention = self._attention(number)
        return {"query": attention.q_proj, "key": attention.k_proj}

    def grids(self, call: Mapping[str, Any]) -> list[Grid]:
        grids: list[Grid] = self._grids(call["pixel_values"])
        return grids

    def frames(self, grids: Sequence[AnyGrid]) -> list[Frames]:
        tile = grids[0].parts[0].tiles[0][0]  # all are of one size
        members = [(image, piece) for image, own in enumerate(grids) for piece in range(own.pieces)]
        return [Frames(Grid(1, tile.rows, tile.cols, tile.cell), members)]

    def inside(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        return _rows(frames[0], self.lead)

    def features(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        return _rows(frames[0], self.features_lead)

    def projected(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        return _rows(frames[0], self.features_lead)

    def enter(self, number: int, call: Call, rows: Tensor | None, bias: Tensor | None) -> Call:
        if bias is None:
            return call
        args, kwargs = call
        states = args[0] if args else kwargs["hidden_states"]
        mask = bias.to(states).view(states.shape[0], 1, 1, -1)
        mask = mask.expand(-1, -1, states.shape[1], -1)
        if len(args) > 1:  # the mask is the block's second argument; towers give none themselves
            return (args[0], mask, *args[2:]), kwargs
        return args, {**kwargs, "attention_mask": mask}

    def keys(
        self,
        number: int,
        seen: Mapping[str, Tensor],
        call: Call,
        rotary: bool = False,
        joined: bool = False,
    ) -> Tensor:
        if joined:
            return seen["key"].flatten(0, 1)
        return self._heads(number, seen["key"]).mean(dim=1).flatten(0, 1)

    def summary(self, states: Tensor) -> Tensor:
        return states[:, :1] if self.has_summary else super().summary(states)

    def summed(
        self, number: int, seen: Mapping[str, Tensor], call: Call, bias: Tensor | None
    ) -> tuple[Tensor, float]:
        if not self.lead:
            return self.received(number, seen, call, bias)
        query, key = (self._heads(number, seen[name]) for name in ("query", "key"))
        return _first_row(query, key, bias, float(self._attention(number).scale))

    def joined(
        self, number: int, seen: Mapping[str, Tensor], call: Call, bias: Tensor | None
    ) -> tuple[Tensor, float]:
        if not self.has_summary:
            return self.received(number, seen, call, bias)
        query, key = seen["query"][:, None], seen["key"][:, None]
        return _first_row(query, key, bias, query.shape[-1] ** -0.5)

    def received(
        self, number: int, seen: Mapping[str, Tensor], call: Call, bias: Tensor | None
    ) -> tuple[Tensor, float]:
        query, key = (self._heads(number, seen[name]) for name in ("query", "key"))
        if bias is not None:
            bias = bias.view(query.shape[0], -1)
        scaling = float(self._attention(number).scale)
        images, _, each, _ = query.shape
        macs = float(images * each * each * self._attention(number).embed_dim)
        return column_mean(query, key, scaling, bias).flatten(), macs

    def _heads(self, number: int, projected: Tensor) -> Tensor:
        """``[images, S, D]`` to ``[images, H, S, d]``."""
        heads: int = self._attention(number).num_heads
        split: Tensor = projected.unflatten(-1, (heads, -1))  # type: ignore[no-untyped-call]
        return split.transpose(1, 2)


def _first_row(
    query: Tensor, key: Tensor, bias: Tensor | None, scaling: float
) -> tuple[Tensor, float]:
    """Float32 ``[images * S]``: attention of the first of the S rows, mean over heads, and what it
    took; ``query`` and ``key`` are ``[images, H, S, d]``."""
    added = torch.zeros(key.shape[0], key.shape[2], dtype=torch.float32, device=key.device)
    if bias is not None:
        added = added + bias.view(added.shape).to(added)
    row = last_row(query[:, :, :1].float(), key.float(), added[:, None, None], scaling)
    return row.flatten(), float(key.numel())


def _rows(frames: Frames, lead: int) -> Arrangement:
    images, tokens = len(frames.members), frames.grid.size
    each = lead + tokens
    slots = torch.arange(images)[:, None] * each + lead + torch.arange(tokens)
    return Arrangement(images * each, [slots[..., None]])
