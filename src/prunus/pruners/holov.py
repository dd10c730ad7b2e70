"""HoloV: crops of the picture share the budget by how much happens in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import TowerAttention
from prunus.signals.alike import alike_pieces
from prunus.signals.crops import Crops, crops_of, shared_out
from prunus.signals.similarity import unit
from prunus.signals.topk import places_of

_SCALE, _WEIGHT = 1000.0, 0.09  # of attention; of variance against it, as released


@dataclass(frozen=True)
class HoloV(Method):
    """HoloV (NeurIPS 2025), before the language model, as its released code has it.

    The tokens of an image are cut into ``crops`` runs in reading order. A crop's weight is the mean
    over its tokens of the attention from CLS in the last block of the tower that is read (without
    CLS: of attention received) and of the variance of the token's cosines with the others of the
    crop, brought to the same mean. So the mean that the variance adds is a fixed share of the
    attention's: in the released formula, which this is, it decides nothing unless it is below a
    millionth. The budget is shared by these weights, and each crop keeps its tokens with most
    attention. Default: 1024 / K crops of 576 tokens, which is 5, 8 and 16 for 192, 128 and 64, in
    proportion for other sizes.

    What a crop cannot take goes to the next ones by weight (ours: released code appends zero
    vectors). Each tile and frame has its share of the budget and its own crops; ``per="input"``
    cuts all of them together, as released for LLaVA-NeXT. Tokens are read in their order;
    ``order="published"``: crop by crop, in each by falling attention.
    """

    name = "holov"
    paper = "NeurIPS 2025 (obananas/HoloV)"
    summary = "crops share the budget by attention and variance"
    presets = {"192": {"keep": 192}, "128": {"keep": 128}, "64": {"keep": 64}}

    keep: Keep = field(default=1 / 9, metadata={"help": "tokens per image, or share of them"})
    crops: int | None = field(
        default=None, metadata={"help": "runs that an image is cut into; default: by its size"}
    )
    per: Literal["tile", "input"] = field(
        default="tile", metadata={"help": "each tile and frame its share | cut together"}
    )
    order: Literal["original", "published"] = field(
        default="original", metadata={"help": "in which the language model reads them"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.crops is not None and self.crops < 1:
            raise PrunusError(f"crops={self.crops}: give 1 or more")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (TowerAttention(),))]

    def select(self, stage: int, view: View) -> Selection:
        attention = self.checked(stage, view, view[TowerAttention()])
        count = min(view.count or 0, view.present.shape[1])
        if count == view.present.shape[1]:
            return Selection(Selection.everything(view).kept, attention)
        chosen, macs = torch.zeros_like(view.present, dtype=torch.bool), 0.0
        lines: list[list[Tensor]] = [[] for _ in view.owners]
        for own in alike_pieces(view.grid, view.present, count, self.per == "tile"):
            tiles, size = own.places.shape
            crops = self.crops or max(1, 1024 * size // (576 * own.count))
            cut = crops_of(size, crops, chosen.device)
            states = own.pick(view.states).to(chosen.device)
            macs += float(tiles * cut.tokens.numel() * cut.tokens.shape[1] * states.shape[2])
            line = _line(cut, own.pick(attention).to(chosen.device), states, own.count)
            own.mark(chosen, line)
            if self.order == "published":
                read = own.places.gather(1, line)
                for image, tokens in zip(own.images.tolist(), read, strict=True):
                    lines[image].append(tokens)
        order = [torch.cat(_by_first(own)) for own in lines] if any(lines) else None
        return Selection(places_of(chosen, count), attention, order=order, macs=macs)


def _line(cut: Crops, attention: Tensor, states: Tensor, count: int) -> Tensor:
    """Int64 ``[M, count]`` of the t tokens of M tiles: crop by crop, by falling attention."""
    most = shared_out(_weights(cut, attention, states), cut.sizes, count)
    looked = cut.of(attention).masked_fill(~cut.there, -torch.inf)
    falling = torch.sort(looked, dim=2, descending=True, stable=True).indices
    line = cut.tokens.expand_as(falling).gather(2, falling).flatten(1)
    first = torch.arange(falling.shape[2], device=line.device) < most[..., None]
    return line.gather(1, places_of(first.flatten(1), count))


def _weights(cut: Crops, attention: Tensor, states: Tensor) -> Tensor:
    """Float32 ``[M, P]``: the share of each crop in the budget."""
    rows = unit(cut.of(states)) * cut.there[..., None]
    alike = rows @ rows.transpose(2, 3)
    itself = torch.eye(alike.shape[3], dtype=torch.bool, device=alike.device)
    alike = alike.masked_fill(itself, 0.0)
    others = (cut.sizes - 1).clamp_min(1)[:, None]  # of a crop of one token nothing varies
    mean = alike.sum(3) / others
    apart = (alike - mean[..., None]) * cut.there[:, None]
    variance = apart.square().sum(3) / others
    looked = _SCALE * cut.of(attention) * cut.there
    variance = variance * cut.there
    level = cut.mean(looked.abs()) / (cut.mean(variance.abs()) + 1e-6)
    scores = cut.mean(looked + _WEIGHT * variance * level[..., None])
    return scores / (scores.sum(1, keepdim=True) + 1e-6)


def _by_first(pieces: list[Tensor]) -> list[Tensor]:
    """Tiles in the order of their first tokens."""
    return sorted(pieces, key=lambda tokens: int(tokens.min()))
