"""OTPrune: a subset that spans what all visual tokens span, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.signals.dpp import greedy_macs, greedy_map


@dataclass(frozen=True)
class OTPrune(Method):
    """OTPrune, as its code has it, before the language model: greedily the subset of largest
    determinant of ``I + weight G G^T``, ``G = y y^T``, where y are an image's projected tokens with
    every *channel* divided by its length over these tokens (not every token by its own).

    The question is not looked at. Published code passes what it picked through a Python set, and
    the language model reads the tokens in the order that this happens to have:
    ``order="published"`` does so (there also: ``prune(..., positions="compact")``); by default
    they are read as they lie.
    """

    name = "otprune"
    paper = "github.com/xiwenc1/OTPrune"
    summary = "largest determinant of tokens, channels normalised"
    presets = {
        "paper": {"keep": 0.098},
        "192": {"keep": 192},
        "128": {"keep": 128},
        "64": {"keep": 64},
    }

    keep: Keep = field(default=0.098, metadata={"help": "tokens per image, or share of them"})
    weight: float = field(default=0.01, metadata={"help": "of G G^T beside the identity"})
    order: Literal["original", "published"] = field(
        default="original", metadata={"help": "in which the language model reads them"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.weight <= 0:
            raise PrunusError(f"weight={self.weight}: give a number above 0")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None)]

    def select(self, stage: int, view: View) -> Selection:
        groups, there = view.present.shape
        count = min(view.count or 0, there)
        kernel = _kernel(view.states.float(), self.weight)
        scores = kernel.diagonal(dim1=1, dim2=2)
        if count == there:
            return Selection(Selection.everything(view).kept, scores)
        picked = greedy_map(kernel, count)
        order = None
        if self.order == "published":
            order = [torch.tensor([*{*own}], device=picked.device) for own in picked.tolist()]
        macs = there**2 * view.states.shape[2] + there**3 + greedy_macs(there, count)
        return Selection(picked.sort(1).values, scores, order=order, macs=groups * macs)


def _kernel(tokens: Tensor, weight: float) -> Tensor:
    """Float32 ``[G, n, n]`` of ``tokens [G, n, D]``."""
    rows = tokens / tokens.norm(dim=1, keepdim=True).clamp_min(1e-12)
    similar = rows @ rows.transpose(1, 2)
    same = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
    return torch.baddbmm(same.expand_as(similar), similar, similar, alpha=weight)
