"""What a selector is made of, and how it is trained: plain settings that go into its folder."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from prunus.errors import PrunusError
from prunus.method.fields import Ranges, check_fields, check_ranges, check_values

Kind = Literal["stepwise", "one-shot"]
Aggregate = Literal["full", "alive", "uniform", "last"]
Arm = Literal["stable", "literal"]


@dataclass(frozen=True)
class SelectorConfig:
    """Shape of a selector (arXiv 2606.16067, sections "Encoder" and "Pointer decoder").

    Attributes:
        visual_width, text_width: channels of the visual features and of the word embeddings.
        width: channels inside; where it differs from ``visual_width`` a linear layer adapts.
        kind: "stepwise" picks tokens one by one; "one-shot" gives every token one score (the
            control that the paper lacks, trained through the same gate).
        encoder_layers, decoder_layers, heads, mlp_ratio: of the two stacks.
        causal_encoder: ablation of the paper's table 4; the published encoder sees both ways.
        pointer: "separate" projections for the pointer, or the mean over heads of the last
            "cross"-attention's logits. The paper's text allows both.
        clip: pointer logits become ``clip * tanh(logits / clip)``; 0 leaves them alone.
        temperature: of the softmax over slots.
        min_steps: steps in which STOP cannot be chosen.
        stop_bias: where STOP's learned bias starts.
        max_share: T_max as a share of an image's tokens.
    """

    visual_width: int
    text_width: int
    width: int = 1024
    kind: Kind = "stepwise"
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 16
    mlp_ratio: int = 4
    causal_encoder: bool = False
    pointer: Literal["separate", "cross"] = "separate"
    clip: float = 0.0
    temperature: float = 1.0
    min_steps: int = 8
    stop_bias: float = -3.0
    max_share: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind not in get_args(Kind):
            raise PrunusError(f"kind={self.kind!r}: choose {' or '.join(get_args(Kind))}")
        if self.pointer not in ("separate", "cross"):
            raise PrunusError(f"pointer={self.pointer!r}: choose separate or cross")
        check_ranges(self, _SELECTOR_RANGES)
        if self.width % self.heads or self.width % 2:
            raise PrunusError(f"width={self.width} must be even and divide by heads={self.heads}")
        if not self.temperature > 0:
            raise PrunusError(f"temperature={self.temperature}: it must be above 0")
        if not 0 < self.max_share <= 1:
            raise PrunusError(f"max_share={self.max_share}: give a share in (0, 1]")
        if self.kind == "stepwise" and self.decoder_layers < 1:
            raise PrunusError("decoder_layers=0: a pointer decoder needs at least one layer")

    def most(self, tokens: int) -> int:
        """T_max for an image of ``tokens`` visual tokens (at least one)."""
        return max(1, int(tokens * self.max_share))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TrainSettings:
    """How a selector is trained (sections "Differentiable relaxation", "Losses", "Setup").

    ``arm`` presets what is left None: "literal" is the paper as printed, "stable" (default) mends
    what cannot work as printed (see docs/stepwise.md). What the paper does not give is chosen here.

    Attributes:
        steps, batch: optimiser steps, and examples per step (over all processes and accumulation).
        rate, final_rate, warmup, weight_decay, clip: AdamW with a cosine from ``rate`` to
            ``final_rate`` after a linear warm-up over that share of the steps; gradient norm.
        length: lambda, the weight of K/N.
        lengthen: share of the steps over which that weight rises from 0. A selector that does not
            know yet which tokens matter learns to stop at once, and a saturated STOP hardly learns
            anything else; the paper has the weight from the start.
        keep: train for exactly so many tokens (int) or this share of them, STOP masked; None lets
            the selector stop by itself. The one-shot control needs it.
        max_steps: cap on T_max while training, for speed; None: none.
        beta: decay of a step's weight in the aggregated score.
        aggregate: "full" (alive and decay), "alive" (no decay), "uniform" (neither), or "last" (the
            last step's pointer alone): table 4.
        text_gate: share of the steps over which g rises from 0 to 1.
        sharp_from, sharp_to, sharpen: temperature of the soft top-k, from, to, and the share of the
            steps over which it falls (cosine).
        scores: "log" standardises log scores over an image's tokens before the soft top-k, "raw"
            takes them as they are.
        count: soft top-k keeps the batch's running "mean" of hard counts, or each "sample"'s own
            differentiable length.
        noise: of the gate: "unit" normal, or "matched" to running mean and deviation per channel.
        denoise: whether the diagonal denoiser follows the gate.
        seed: of weights, data order and noise.
    """

    steps: int = 5000
    batch: int = 16
    rate: float = 1e-4
    final_rate: float = 1e-5
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 1.0
    length: float = 1e-2
    lengthen: float = 0.0
    keep: int | float | None = None
    max_steps: int | None = None
    beta: float = 0.9
    aggregate: Aggregate = "full"
    text_gate: float = 0.3
    sharp_from: float = 2.0
    sharp_to: float = 0.1
    sharpen: float = 0.4
    arm: Arm = "stable"
    scores: Literal["log", "raw"] | None = None
    count: Literal["sample", "mean"] | None = None
    noise: Literal["matched", "unit"] | None = None
    denoise: bool = True
    seed: int = 0
    selector: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.arm not in get_args(Arm):
            raise PrunusError(f"arm={self.arm!r}: choose {' or '.join(get_args(Arm))}")
        for name, value in _ARMS[self.arm].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        chosen = {**_SELECTOR[self.arm], **self.selector}
        known = {one.name for one in fields(SelectorConfig)} - {"visual_width", "text_width"}
        if unknown := sorted(map(str, set(chosen) - known)):
            raise PrunusError(
                f"a selector has no setting {', '.join(unknown)}: it has {', '.join(sorted(known))}"
            )
        check_values(SelectorConfig, chosen, "selector.")
        object.__setattr__(self, "selector", chosen)
        if self.aggregate not in get_args(Aggregate):
            names = ", ".join(get_args(Aggregate))
            raise PrunusError(f"aggregate={self.aggregate!r}: choose one of {names}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise PrunusError(f"{name}={getattr(self, name)!r}: choose {' or '.join(choices)}")
        if chosen.get("kind") == "one-shot" and self.keep is None:
            raise PrunusError("the one-shot control cannot stop by itself: give keep")
        if not 0 < self.beta <= 1:
            raise PrunusError(f"beta={self.beta}: give a number in (0, 1]")
        for name in ("rate", "sharp_from", "sharp_to"):
            if not getattr(self, name) > 0:
                raise PrunusError(f"{name}={getattr(self, name)}: it must be above 0")
        check_ranges(self, _TRAIN_RANGES)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def changed(self, **settings: Any) -> TrainSettings:
        """A copy with other ``settings``."""
        return replace(self, **settings)


#: Least and largest values. The largest are far beyond what anybody trains, and keep a broken file
#: from asking for all memory there is.
_SELECTOR_RANGES: Ranges = {
    "visual_width": (1, 2**17),
    "text_width": (1, 2**17),
    "width": (1, 2**17),
    "heads": (1, 2**12),
    "mlp_ratio": (1, 2**10),
    "encoder_layers": (0, 2**10),
    "decoder_layers": (0, 2**10),
    "min_steps": (0, 2**31),
    "clip": (0, math.inf),
}
_TRAIN_RANGES: Ranges = {
    "steps": (1, math.inf),
    "batch": (1, math.inf),
    "max_steps": (1, math.inf),
    "final_rate": (0, math.inf),
    "weight_decay": (0, math.inf),
    "clip": (0, math.inf),
    "warmup": (0, 1),
    "lengthen": (0, 1),
    "text_gate": (0, 1),
    "sharpen": (0, 1),
    "seed": (0, math.inf),
}
_ARMS: dict[Arm, dict[str, str]] = {
    "stable": {"scores": "log", "count": "sample", "noise": "matched"},
    "literal": {"scores": "raw", "count": "mean", "noise": "unit"},
}
_SELECTOR: dict[Arm, dict[str, Any]] = {
    "stable": {},
    "literal": {"min_steps": 0, "stop_bias": 0.0},
}
_CHOICES = {"scores": ("log", "raw"), "count": ("sample", "mean"), "noise": ("matched", "unit")}
