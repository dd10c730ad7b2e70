"""SparseVLM: words that look at the image rate its tokens; what goes is recycled in clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, between, check_keep
from prunus.method.signals import Attention, States, TextMask
from prunus.signals.raters import raters
from prunus.signals.recycling import centres, recycled
from prunus.signals.topk import each_place, stable_topk

_LAYERS = (3, 7, 16)  # of 32: the outputs of layers 2, 6 and 15
#: Tokens that are kept (without recycled ones) of 576, by budget: the released schedules.
_KEPT = {64: (66, 30, 17), 96: (238, 48, 26), 128: (303, 110, 36), 192: (300, 200, 110)}


@dataclass(frozen=True)
class SparseVLM(Method):
    """SparseVLM v1.5 (arXiv 2410.04417), at the input of ``layers``.

    Raters are the words behind the image to which, at the model's input, its tokens are most alike
    (more than the mean); their mean attention in the layer before is the score. Of what goes, the
    best 30 % are recycled: density peaks among them become the means of their clusters, are read
    behind the tokens that were kept, and positions are closed up.

    Released schedules for 64, 96, 128 and 192 of 576 tokens; between them, counts are
    interpolated, beyond 192 towards all and below 64 in proportion (ours). They count recycled
    tokens on top: "192" keeps 309, 204, 113. Random noise on densities, which breaks ties in the
    released code, is left out: ties go to the lower index.
    """

    name = "sparsevlm"
    paper = "arXiv 2410.04417 (ICML 2025)"
    summary = "what relevant words attend to, the rest recycled in means"
    kind = "merge"
    presets = {str(keep): {"keep": keep} for keep in _KEPT}

    keep: Keep = field(default=1 / 3, metadata={"help": "tokens per image, or share of them"})
    layers: tuple[int, ...] | None = field(
        default=None, metadata={"help": "layers at whose input tokens go; default: 3, 7, 16 of 32"}
    )
    recycle: bool = field(default=True, metadata={"help": "merge the best of what goes"})

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.layers is not None and (len(self.layers) != 3 or min(self.layers) < 1):
            raise PrunusError(f"layers={self.layers}: name three, from 1 on")

    def cuts(self, depth: int) -> Sequence[Cut]:
        found = []
        for stage, layer in enumerate(stages(self.layers, depth)):
            sees = (Attention(layer - 1, "text", each=True), *(RATED if stage == 0 else ()))
            found.append(Cut(layer, sees, compact=True))
        return found

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float]:
        there, left = original, []
        for kept in between(_KEPT, 576 * (keep or 0.0) / original, 576):
            own = max(1, min(math.floor(kept * original / 576 + 1e-6), there))
            there = own + (centres(there - own) if self.recycle else 0)
            left.append(float(there))
        return left

    def select(self, stage: int, view: View) -> Selection:
        there = view.present.shape[1]
        total = min(view.count or 0, there)
        if stage == 0:
            rate(view)
        layer = stages(self.layers, view.depth)[stage]
        rows = view[Attention(layer - 1, "text", each=True)]
        mask = rating(view, rows, self.name)
        scores = (rows * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        if total == there:
            return replace(Selection.everything(view), scores=scores)
        kept = max(k for k in range(total + 1) if k + self._added(there - k) <= total)
        best = stable_topk(scores, kept)
        width = view.states.shape[-1]
        macs = float(rows.numel() * width * (2 if stage == 0 else 1))  # rows, and who rates
        if not self.recycle:
            return Selection(best, scores, macs=macs)
        made = [
            recycled(own, tokens, values, total - kept)
            for own, tokens, values in zip(best, view.states, scores, strict=True)
        ]
        order = [line for line, _ in made]
        ascending = torch.stack([line.sort().values for line in order])
        into = torch.stack([own for _, own in made])
        macs += float(len(best) * int(0.3 * (there - kept) + 1) ** 2 * width)  # distances
        return Selection(ascending, scores, order=order, into=into, by_size=False, macs=macs)

    def _added(self, gone: int) -> int:
        return centres(gone) if self.recycle else 0


def stages(layers: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    """``layers`` where they are given, else 3, 7 and 16 of 32."""
    if layers is not None:
        return layers
    found: list[int] = []
    for layer in _LAYERS:
        found.append(max(math.ceil(layer * depth / 32), found[-1] + 1 if found else 1))
    return tuple(found)


#: What :func:`rate` looks at.
RATED = (States(0), States(0, "text"), TextMask())


def rate(view: View) -> None:
    """Remember by image, int64, the words behind it that rate its tokens (:data:`RATED`)."""
    above = raters(view[States(0)], view[States(0, "text")], view[TextMask()])
    # By image: any later group may be of others.
    view.memo.setdefault("raters", {}).update(zip(view.owners, each_place(above), strict=True))


def rating(view: View, rows: Tensor, name: str) -> Tensor:
    """Float32 ``[G, T]``: 1 for the words that rate, of ``rows`` float32 ``[G, ..., T, n]``.

    Raises:
        PrunusError: no text stands behind an image.
    """
    mask = rows.new_zeros(len(rows), rows.shape[-2])
    for line, owner in zip(mask, view.owners, strict=True):
        words: Tensor = view.memo["raters"][owner]
        if not len(words):
            raise PrunusError(
                f"{name}: no text stands behind an image, so that no word can rate its tokens: put "
                "the question behind the images, or choose another method"
            )
        line[words] = 1.0
    return mask
