"""DART: keep the tokens that are least like a few pivots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import Keys, States, TextMask
from prunus.signals.topk import places_of, stable_topk

_IMAGE, _TEXT = 4, 4


@dataclass(frozen=True)
class DART(Method):
    """DART (arXiv 2502.11494), duplication-aware reduction of tokens, at the input of ``layer``.

    Pivots are the visual tokens and the tokens of the text behind the image (4 each) whose keys in
    the layer before have the largest L1 norm. For each pivot in turn, visual pivots first and by
    falling norm, the q remaining visual tokens with the *lowest* cosine to it stay, by the states
    behind the model's last norm; visual pivots stay as well. Attention is looked at nowhere.
    Keys are taken as they are rotated, so that their norms depend on where tokens stand: give a
    padded batch its ``position_ids`` (``generate`` does), or padding counts.

    Published budgets keep ``4 + 8 * (keep // 8)``: 196 for 192. Where another number is needed (a
    true budget), the first pivots take one more. ``equal-192``, ``equal-128`` and ``equal-64`` are
    ours: the published counts that come nearest to averages of 192, 128 and 64 of 576 tokens over
    32 layers (189.8, 129.8 and 62.3; "192" averages 219.8).
    """

    name = "dart"
    paper = "arXiv 2502.11494 (EMNLP 2025)"
    summary = "tokens least like a few pivots of image and text"
    presets = {
        "192": {"keep": 192},
        "128": {"keep": 128},
        "64": {"keep": 64},
        "llava-next": {"keep": 320},
        "equal-192": {"keep": 164},
        "equal-128": {"keep": 100},
        "equal-64": {"keep": 28},
    }

    keep: Keep = field(default=2 / 9, metadata={"help": "tokens per image, or share of them"})
    layer: int = field(default=2, metadata={"help": "decoder layer at whose input tokens go"})

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.layer < 1:
            raise PrunusError(
                f"layer={self.layer}: some layer must have run before: give 1 or more"
            )

    def cuts(self, depth: int) -> Sequence[Cut]:
        seen = self.layer - 1
        sees = (Keys(seen), Keys(seen, "text"), _STATES, _TEXT_STATES, TextMask())
        return [Cut(self.layer, sees)]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float]:
        each = _IMAGE + _TEXT
        asked = keep or 0.0
        return [original if asked >= original else _IMAGE + each * (asked // each)]

    def select(self, stage: int, view: View) -> Selection:
        count = min(view.count or 0, view.present.shape[1])
        seen = self.layer - 1
        norms = view[Keys(seen)].float().abs().sum((2, 3))
        if count == view.present.shape[1]:
            return Selection(Selection.everything(view).kept, norms)
        words = view[Keys(seen, "text")].float().abs().sum((2, 3))
        words = words.masked_fill(~view[TextMask()], -torch.inf)
        states = torch.nn.functional.normalize(view[_STATES].float(), dim=-1)
        text = torch.nn.functional.normalize(view[_TEXT_STATES].float(), dim=-1)
        there = torch.isfinite(words).sum(1).tolist()
        each = zip(norms, words, states, text, there, strict=True)
        kept = [_kept(*one, count) for one in each]
        return Selection(torch.stack(kept), norms)

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return float((_IMAGE + _TEXT) * present * width)


_STATES, _TEXT_STATES = States(normed=True), States(of="text", normed=True)


def _kept(
    norms: Tensor, words: Tensor, states: Tensor, text: Tensor, there: int, count: int
) -> Tensor:
    """Int64 ``[count]``, ascending, of one image: norms ``[n]``, ``[T]`` (``there`` of them of some
    word), unit rows."""
    own = norms.argsort(descending=True, stable=True)[: min(_IMAGE, count)]
    other = words.argsort(descending=True, stable=True)[: min(_TEXT, there)]
    pivots = torch.cat([states[own], text[other]])
    cosine = states @ pivots.T
    free = torch.ones_like(norms, dtype=torch.bool).scatter(0, own, False)
    each, more = divmod(count - len(own), len(pivots))
    for number in range(len(pivots)):
        least = (-cosine[:, number]).masked_fill(~free, -torch.inf)
        picked = stable_topk(least, each + (number < more))
        free = free.scatter(0, picked, False)
    return places_of(~free, count)
