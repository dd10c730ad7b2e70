"""IVC-Prune: tokens that values say are meant, and tokens at positions that rotary angles single
out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.fields import check_ranges
from prunus.method.signals import PromptMask, Rotary, Signal, TextMask, Values
from prunus.signals.topk import each_place, stable_topk
from prunus.signals.values import value_attention

_SHARES = ("share", "landmarks", "seeds")


@dataclass(frozen=True)
class IVCPrune(Method):
    """IVC-Prune, as its code has it: one cut at the input of ``layer``, half-way where none is
    given. Positions stay; tokens go from the caches of earlier layers as well.

    Three sets stay, of the shares of an image's tokens that the fields name: *seeds*, which the
    text (without its first ``skip`` tokens behind the image) attends to where values of the layer
    before stand for queries and keys (over all of the prompt, without a causal mask, mean over
    heads); those that text and seeds together attend to so; and *landmarks*: the tokens with the
    largest mean cosine, and those with the largest mean sine, of their rotary angles over all
    frequencies (and axes). That is LLaVA's form. They overlap, so that the count is each image's
    own.

    With ``keep`` it is exact, as for Qwen2.5-VL (``ivc-prune@qwen2.5-vl-7b``): landmarks stay, and
    the best of the rest; where ``keep`` is less than all landmarks, the best of these. There the
    softmax is over the image's tokens alone (``columns="image"``).

    Published code for LLaVA leaves the cache of layer 0 whole, because it reads from there at which
    position it decodes; here it is trimmed like the others.
    """

    name = "ivc-prune"
    paper = "IVC-Prune (code: FireRedTeam/IVC-Prune)"
    summary = "what relates to the text, and landmarks of rotary positions"
    presets = {
        "llava": {"layer": 16},
        "qwen2.5-vl-7b": {"layer": 16, "keep": 0.5, "landmarks": 0.1, "columns": "image"},
        "qwen2.5-vl-3b": {"layer": 22, "keep": 0.5, "landmarks": 0.1, "columns": "image"},
    }

    keep: Keep | None = field(
        default=None, metadata={"help": "exactly so many, or such a share; default: its own count"}
    )
    layer: int | None = field(default=None, metadata={"help": "of the cut; default: half-way"})
    share: float = field(default=0.2, metadata={"help": "of tokens that stay by score"})
    landmarks: float = field(default=0.05, metadata={"help": "share by cosine, and by sine"})
    seeds: float = field(default=0.01, metadata={"help": "share of seeds, at least one"})
    columns: Literal["prompt", "image"] = field(
        default="prompt", metadata={"help": "over which the softmax is"}
    )
    skip: int = field(default=2, metadata={"help": "tokens behind an image that do not ask"})
    trim_cache: bool = field(
        default=True, metadata={"help": "take tokens out of earlier layers' caches as well"}
    )

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)
        check_ranges(self, {**dict.fromkeys(_SHARES, (0, 1)), "skip": (0, float("inf"))})
        if self.layer is not None and self.layer < 1:
            raise PrunusError(
                f"layer={self.layer}: some layer must have run before: give 1 or more"
            )

    def _layer(self, depth: int) -> int:
        return max(1, depth // 2) if self.layer is None else self.layer

    def cuts(self, depth: int) -> Sequence[Cut]:
        layer = self._layer(depth)
        sees: list[Signal[Any]] = [Values(layer - 1), Values(layer - 1, "text")]
        sees += [TextMask(), Rotary(layer - 1)]
        if self.columns == "prompt":
            sees += [Values(layer - 1, "prompt"), PromptMask()]
        return [Cut(layer, tuple(sees), trim_cache=self.trim_cache)]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        return None if keep is None else [keep]

    def select(self, stage: int, view: View) -> Selection:
        if view.count is not None and view.count >= view.present.shape[1]:
            return Selection(Selection.everything(view).kept)
        scores, seeds, macs = self._scores(view)
        stays = torch.zeros_like(scores, dtype=torch.bool)
        for part in view[Rotary(self._layer(view.depth) - 1)]:
            # Row 2, column 5 is as good as row 5, column 2: whatever the order of the axes.
            means = part.mean(3).sort(2).values.sum(2).to(scores.device)
            stays = stays.scatter(1, _best(view, means, self.landmarks), True)
        if view.count is not None:
            return Selection(stable_topk(scores + 2.0 * stays, view.count), scores, macs=macs)
        stays = stays.scatter(1, seeds, True).scatter(1, _best(view, scores, self.share), True)
        return Selection(each_place(stays), scores, macs=macs)

    def _scores(self, view: View) -> tuple[Tensor, Tensor, float]:
        """Float32 ``[G, n]``, mean attention of text and seeds; int64 ``[G, s]``, the seeds; and
        the multiply-accumulates that this took."""
        last = self._layer(view.depth) - 1
        image, text = view[Values(last)], view[Values(last, "text")]
        everyone, there = image, torch.ones_like(image[:, :, 0, 0], dtype=torch.bool)
        if self.columns == "prompt":
            everyone, there = view[Values(last, "prompt")], view[PromptMask()].to(image.device)
        asks = self._asking(view[TextMask()].to(image.device))[..., None]
        rows = value_attention(text, image, everyone, there) * asks
        asked, number = rows.sum(1), asks.sum(1)
        seeds = _best(view, asked / number, self.seeds, least=1)
        own = image.gather(1, seeds[..., None, None].expand(-1, -1, *image.shape[2:]))
        more = value_attention(own, image, everyone, there)
        size = (rows.shape[1] + seeds.shape[1]) * image[0, 0].numel()
        columns = everyone.shape[1] + (image.shape[1] if self.columns == "prompt" else 0)
        macs = float(len(image) * size * columns)
        return (asked + more.sum(1)) / (number + seeds.shape[1]), seeds, macs

    def _asking(self, text: Tensor) -> Tensor:
        """Of bool ``[G, T]``, the text that is there behind each image, without the first ``skip``
        tokens; all of it where there are no more.

        Raises:
            PrunusError: there is none.
        """
        rest = text & (torch.arange(text.shape[1], device=text.device) >= self.skip)
        asks = torch.where(rest.any(1, keepdim=True), rest, text)
        if not bool(asks.any(1).all()):
            raise PrunusError(
                "ivc-prune: no text stands behind an image, so that nothing attends to it: ask "
                "something behind the images, or choose another method"
            )
        return asks


def _best(view: View, scores: Tensor, share: float, least: int = 0) -> Tensor:
    """Int64 ``[G, k]``: of ``scores [G, n]`` the best, ``share`` of the image's original tokens."""
    count = max(least, round(share * view.grid.size))
    return stable_topk(scores, min(count, scores.shape[1]))
