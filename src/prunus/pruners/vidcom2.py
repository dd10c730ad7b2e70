"""VidCom2: frames that stand out keep more, and in each the tokens that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.signals.similarity import unit
from prunus.signals.topk import each_place, rank_in

_WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)  # of the kernels
_TEMPERATURE = 0.01


@dataclass(frozen=True)
class VidCom2(Method):
    """VidCom2 (arXiv 2505.14454), before the language model, on projected tokens: of their
    channels, the half that varies least over the video.

    A token is the less typical the farther it is, by a sum of Gaussian kernels, from the mean of
    the video and from that of its frame. Frames whose tokens are far from the video's mean keep
    more than their share, at most twice as many, the others less (a softmax with a temperature of
    0.01: nearly all of the extra goes to one frame), each the least typical of its tokens.

    Counts of frames are rounded, so that their sum is not what was asked for. With ``keep``, as in
    vLLM, the most typical of those that stay go, or the least typical of those that went stay,
    until it is. Without, it is left as it is for the share ``ratio``, as in the original, and
    nobody knows before how many that are. (vLLM keeps one token of each frame at least, whatever
    the budget; here the budget is met.)

    An image is a video of one frame: it keeps the tokens farthest from its mean. Frames that a
    model sees as images of their own (InternVL, Idefics3) are such images.
    """

    name = "vidcom2"
    paper = "arXiv 2505.14454 (EMNLP 2025)"
    summary = "of videos, frames that stand out keep more"
    presets = {"paper": {"keep": 0.25}, "original": {"keep": None, "ratio": 0.25}}

    keep: Keep | None = field(
        default=0.25,
        metadata={"help": "tokens per video or image, or share; none: what ratio comes to"},
    )
    ratio: float = field(
        default=0.25, metadata={"help": "without keep: about the share that stays, in (0, 1]"}
    )

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)
        if not 0 < self.ratio <= 1:
            raise PrunusError(f"ratio={self.ratio}: the share that stays must be in (0, 1]")

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None)]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        return None if keep is None else [keep]

    def select(self, stage: int, view: View) -> Selection:
        there = view.present.shape[1]
        count = None if view.count is None else min(view.count, there)
        share, device = self.ratio if count is None else count / there, view.present.device
        frames = _frames(view.grid).to(device)[view.present]
        rows = unit(_steady(view.states.float())).to(device)
        of_frame = one_hot(frames, view.grid.frames).float()
        sizes = of_frame.sum(1)  # [G, T]; 0 where nothing is left of a frame
        means = of_frame.transpose(1, 2) @ rows / sizes.clamp_min(1)[..., None]
        video = _near(rows, rows.mean(1, keepdim=True))
        own = means.gather(1, frames[..., None].expand(-1, -1, rows.shape[2]))
        typical = self.checked(stage, view, video + _near(rows, own))
        if share == 1:
            return Selection(Selection.everything(view).kept, -typical)
        by_frame = (of_frame * video[..., None]).sum(1) / sizes.clamp_min(1)
        most = _shared(by_frame, sizes, share)
        stays = rank_in(-typical, frames) < most.gather(1, frames)
        if count is None:
            return Selection(each_place(stays), -typical)
        line = torch.sort(typical, dim=1, stable=True).indices
        behind = torch.sort((~stays).gather(1, line).byte(), dim=1, stable=True).indices
        kept = line.gather(1, behind[:, :count]).sort(1).values
        return Selection(kept, -typical)

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return float(grid.frames * present * (width // 2))  # means of frames


def _frames(grid: AnyGrid) -> Tensor:
    """Int64 ``[N]``: the slice of time that each token is of."""
    return torch.cat(
        [torch.arange(part.frames).repeat_interleave(part.rows * part.cols) for part in grid.parts]
    )


def _steady(states: Tensor) -> Tensor:
    """The half of the channels of ``[G, n, D]`` that varies least over the n tokens."""
    half = max(1, states.shape[2] // 2)
    order = torch.sort(states.var(1, correction=0), dim=1, stable=True).indices[:, :half]
    return states.gather(2, order[:, None].expand(-1, states.shape[1], -1))


def _near(rows: Tensor, centres: Tensor) -> Tensor:
    """Float32 ``[G, n]``: kernels of all widths between ``rows [G, n, D]`` and ``centres``."""
    apart = (rows - centres).square().sum(2)
    return torch.stack([torch.exp(-apart / (2 * width)) for width in _WIDTHS]).sum(0)


def _shared(near: Tensor, sizes: Tensor, share: float) -> Tensor:
    """Float32 ``[G, T]``: how many tokens each frame keeps, from the mean nearness of its tokens to
    the video's mean."""
    there = sizes > 0
    odd = (-near / _TEMPERATURE).masked_fill(~there, -torch.inf).softmax(1)
    mean = 1 / there.sum(1, keepdim=True)
    found = (sizes * (share * (1 + odd - mean)).clamp(max=1)).round()
    return torch.minimum(found.clamp_min(1), sizes)
