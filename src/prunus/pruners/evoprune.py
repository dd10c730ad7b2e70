"""EvoPrune: merge visual tokens inside the vision tower, from block to block."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from prunus.errors import PrunusError, PrunusTypeError
from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, Unit, check_keep
from prunus.method.removals import SCHEDULES, Schedule, removals, shares
from prunus.method.signals import Signal, States, TowerAttention, TowerKeys
from prunus.signals.bipartite import best_and_others, lined_up, rows, sides
from prunus.signals.density import diversity
from prunus.signals.similarity import best_partners, unit

_RECEIVED = TowerAttention(rows="all")


@dataclass(frozen=True)
class EvoPrune(Method):
    """Early visual token merging (arXiv 2603.03681, section 3 and appendix A).

    At each merging block, tokens at even and odd places are matched: every even one finds its best
    odd one by ``similarity * exp(-diversity * (d_i + d_j))``, where d is how alone a token is among
    its nearest neighbours, and the best pairs merge. The quarter of tokens that receive most
    attention is protected. ``keep`` counts tokens per image, or per frame of a video, and is met
    exactly; with ``per="video"``, those of a whole video, whose frames keep equal parts of it,
    rounded down. ``diversity=0, protect=0`` is ToMe's matching with EvoPrune's schedule.

    Tokens alternate in the order of their own places (``order="slot"``), or as ToMe lines them up
    (``"append"``): the tokens that found no pair, by falling score, then those that others went
    into. ToMe's line begins with the CLS token where there is one. ``parity="cls"`` counts it: the
    places of givers and takers change over, and tokens without a pair keep their order (ToMe sorts
    them, so that CLS stays in front); of an odd number the smaller half can go. So ToMe itself is
    ``order="append"``, with ``parity="cls"`` on a tower with a CLS token (CLIP). The language model
    reads survivors at their own places, whatever the order in the tower.

    What the paper leaves open is a parameter; `docs/evoprune.md` lists the choices.
    """

    name = "evoprune"
    paper = "arXiv 2603.03681"
    summary = "merges alike tokens block by block, spares unique ones"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hidden": {"metric": "hidden"},
        "noattn": {"protect": 0.0},
        "nodiv": {"diversity": 0.0},
        "tome": {"protect": 0.0, "diversity": 0.0},
    }
    compared: ClassVar[tuple[str, ...]] = tuple(presets)
    kind = "merge"

    keep: Keep = field(default=1 / 3, metadata={"help": "tokens per image or frame, or share"})
    schedule: Schedule = field(default="skip", metadata={"help": " | ".join(SCHEDULES)})
    start: int = field(default=1, metadata={"help": "first tower block that may merge"})
    some: int | None = field(
        default=None, metadata={"help": "blocks of `first` and `last`; default: half of them"}
    )
    growth: float = field(default=1.0, metadata={"help": "exponent of increasing and decreasing"})
    protect: float = field(
        default=0.25, metadata={"help": "share protected by attention received; 0: none"}
    )
    diversity: float = field(
        default=0.1, metadata={"help": "strength (lambda) of the diversity weight; 0: off"}
    )
    neighbours: int = field(default=10, metadata={"help": "K of the diversity weight"})
    tau: float | Literal["auto"] = field(
        default="auto", metadata={"help": "scale of its Gaussian; auto: from each image"}
    )
    metric: Literal["key", "hidden"] = field(
        default="key", metadata={"help": "what is compared: attention keys, or hidden states"}
    )
    proportional: bool = field(
        default=False, metadata={"help": "count merged tokens by their size in later attention"}
    )
    by_size: bool = field(
        default=True, metadata={"help": "merge to the mean of original tokens, or of the pair"}
    )
    order: Literal["slot", "append"] = field(
        default="slot", metadata={"help": "in which tokens alternate: their own | as in ToMe"}
    )
    parity: Literal["tokens", "cls"] = field(
        default="tokens", metadata={"help": "what alternates: tokens | CLS and tokens, as in ToMe"}
    )
    per: Literal["frame", "video"] = field(
        default="frame", metadata={"help": "of a video `keep` counts: each frame's | all tokens"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        for name, choices in (
            ("schedule", SCHEDULES),
            ("metric", ("key", "hidden")),
            ("order", ("slot", "append")),
            ("parity", ("tokens", "cls")),
        ):
            if getattr(self, name) not in choices:
                raise PrunusError(f"{name}={getattr(self, name)!r}: choose {' or '.join(choices)}")
        for name, lowest in (("start", 0), ("neighbours", 1), ("some", 1)):
            value = getattr(self, name)
            if value is None and name == "some":
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise PrunusTypeError(f"{name}={value!r} is no integer")
            if value < lowest:
                raise PrunusError(f"{name}={value}: it must be at least {lowest}")
        if not 0.0 <= self.protect <= 1.0:
            raise PrunusError(f"protect={self.protect}: the protected share must be in [0, 1]")
        for name in ("diversity", "growth"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise PrunusError(f"{name}={getattr(self, name)}: it must be finite, at least 0")
        if self.tau != "auto" and not (isinstance(self.tau, float | int) and self.tau > 0):
            raise PrunusError(f"tau={self.tau!r}: give 'auto' or a positive number")

    @property
    def unit(self) -> Unit:
        return "frame" if self.per == "frame" else "shared"

    @property
    def in_tower(self) -> tuple[Signal[Any], ...]:
        """As of :class:`~prunus.method.capabilities.MergesInTower`."""
        compared: Signal[Any] = TowerKeys() if self.metric == "key" else States()
        return (compared, _RECEIVED) if self.protect > 0 else (compared,)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return []

    def merges(self, blocks: int, original: int, count: int | None) -> Sequence[int]:
        """As of :class:`~prunus.method.capabilities.MergesInTower`."""
        weights = shares(self.schedule, blocks, self.start, self.some, self.growth)
        left = original if count is None else count
        return removals(original, left, weights, larger=self.parity == "tokens")

    def merge(self, view: View) -> Selection:
        """As of :class:`~prunus.method.capabilities.MergesInTower`."""
        vectors = unit(view[TowerKeys() if self.metric == "key" else States()])
        gone = view.count or 0
        tokens, width = vectors.shape[1:]
        cls = self.parity == "cls"  # which has the first place, and is never merged
        giving, taking = sides(vectors, view.carry, cls)
        macs = float(giving.shape[1] * taking.shape[1] * width)

        weights = barred = received = None
        if self.diversity > 0:
            weight = torch.exp(-self.diversity * diversity(vectors, self.neighbours, self.tau))
            weights = weight.gather(1, giving), weight.gather(1, taking)
            macs += float(tokens * tokens * width)
        # Enough must stay free for the pairs that are to merge.
        count = math.floor(min(self.protect * tokens, tokens - 2 * gone))
        if self.protect > 0:
            received = view[_RECEIVED]
            spared = torch.zeros_like(received, dtype=torch.bool)
            order = torch.sort(received, dim=1, descending=True, stable=True).indices
            spared.scatter_(1, order[:, : max(0, count)], True)
            barred = spared.gather(1, giving), spared.gather(1, taking)

        scores, partner = best_partners(
            rows(vectors, giving), rows(vectors, taking), weights, barred
        )
        best, others = best_and_others(scores, gone)
        source, destination = giving.gather(1, best), taking.gather(1, partner.gather(1, best))
        carry = None
        if self.order == "append":
            carry = lined_up(others, giving, taking, cls)
        return Selection.merge(view, source, destination, self.by_size, received, carry, macs)
