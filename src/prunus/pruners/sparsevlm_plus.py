"""SparseVLM v2.0: attention of rating words without what it owes to nearness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from prunus.errors import PrunusError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, between, check_keep
from prunus.method.signals import Attention, Rotary
from prunus.pruners.sparsevlm import RATED, rate, rating, stages
from prunus.signals.gravity import gravity
from prunus.signals.topk import stable_topk

#: Tokens that are kept of 576, by budget: the released schedules.
_KEPT = {64: (66, 34, 20), 96: (246, 54, 28), 128: (238, 108, 60), 192: (300, 200, 118)}


@dataclass(frozen=True)
class SparseVLMPlus(Method):
    """SparseVLM v2.0 ("SparseVLM+" in its repository), at the input of ``layers``.

    The words that rate are those of :class:`~prunus.pruners.sparsevlm.SparseVLM`. Their attention
    in the layer before is divided by the logit that a query and a key of ones have at that
    distance, which rotary embeddings make large for what is near; of heads, those count in which
    raters then attend to the image most. Their mean is the score. Nothing is recycled, positions
    stay as they are.

    Released schedules for 64, 96, 128 and 192 of 576 tokens (their averages over 32 layers are
    81.8, 113.9, 144.1 and 206.8); between them, counts are interpolated, beyond 192 towards all and
    below 64 in proportion (ours). The released code takes 14 heads, which come from a model of 28:
    here half of them. The divisor crosses 0 where tokens are far away (1,707 positions at a base of
    10,000), which would turn the order around: it is at least ``floor``, and the trace's label says
    "clamped" where that was so. Positions of several axes (M-RoPE) are averaged over (ours).
    """

    name = "sparsevlm-plus"
    paper = "arXiv 2410.04417 (code v2.0)"
    summary = "what relevant words attend to, corrected for distance"
    presets = {str(keep): {"keep": keep} for keep in _KEPT}

    keep: Keep = field(default=1 / 3, metadata={"help": "tokens per image, or share of them"})
    layers: tuple[int, ...] | None = field(
        default=None, metadata={"help": "layers at whose input tokens go; default: 3, 7, 16 of 32"}
    )
    heads: float = field(default=0.5, metadata={"help": "share of the heads that count, (0, 1]"})
    floor: float = field(default=1.0, metadata={"help": "least divisor of attention"})

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.layers is not None and (len(self.layers) != 3 or min(self.layers) < 1):
            raise PrunusError(f"layers={self.layers}: name three, from 1 on")
        if not 0 < self.heads <= 1:
            raise PrunusError(f"heads={self.heads}: the share that counts must be in (0, 1]")
        if self.floor <= 0:
            raise PrunusError(f"floor={self.floor}: a divisor must be positive")

    def cuts(self, depth: int) -> Sequence[Cut]:
        found = []
        for stage, layer in enumerate(stages(self.layers, depth)):
            rows = Attention(layer - 1, "text", heads="each", each=True)
            turns = (Rotary(layer - 1), Rotary(layer - 1, "text"))
            found.append(Cut(layer, (rows, *turns, *(RATED if stage == 0 else ()))))
        return found

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float]:
        kept = between(_KEPT, 576 * (keep or 0.0) / original, 576)
        return [count * original / 576 for count in kept]

    def select(self, stage: int, view: View) -> Selection:
        there, layer = view.present.shape[1], stages(self.layers, view.depth)[stage] - 1
        count = min(view.count or 0, there)
        if stage == 0:
            rate(view)
        rows = view[Attention(layer, "text", heads="each", each=True)]  # [G, H, T, n]
        mask = rating(view, rows, self.name)
        pull = gravity(view[Rotary(layer, "text")], view[Rotary(layer)]).to(rows.device)
        near = rows / pull.clamp_min(self.floor)[:, None] * mask[:, None, :, None]
        scores = near.sum(2) / mask.sum(1)[:, None, None]  # [G, H, n]
        most = max(1, int(self.heads * rows.shape[1] + 1e-6))
        best = stable_topk(scores.sum(2), most)
        scores = scores.gather(1, best[..., None].expand(-1, -1, there)).mean(1)
        if count == there:
            return replace(Selection.everything(view), scores=scores)
        clamped = ((pull < self.floor) & (mask[..., None] > 0)).flatten(1).any(1).tolist()
        labels = ["clamped" if one else "corrected" for one in clamped]
        macs = float(rows.shape[2] * len(rows) * there * view.states.shape[-1])
        return Selection(stable_topk(scores, count), scores, labels, macs=macs * (1 + (stage == 0)))
