"""Stepwise: a learned pointer network picks visual tokens one by one and decides when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from prunus.errors import PrunusError
from prunus.method import Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.selector.config import Kind
from prunus.selector.learned import Learned, Loaded

Mode = Literal["adaptive", "fixed", "mean"]


@dataclass(frozen=True)
class Stepwise(Learned):
    """Stepwise token selection (arXiv 2606.16067): one selection per image and question, before the
    language model, by a selector that was trained for the model.

    * "adaptive" (without ``keep``): until the selector points at STOP.
    * "fixed" (with ``keep``): exactly so many tokens, STOP masked.
    * "mean": a constant on STOP's logit, found by ``prunus calibrate stepwise``, makes the *mean*
      over questions come to ``keep``; a single image may keep more or fewer.
    """

    name = "stepwise"
    paper = "arXiv 2606.16067 (2026)"
    summary = "a learned pointer picks one by one, and stops by itself"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mean": {"mode": "mean"},
        "no-stop": {"selector": "no-stop"},
        "adaptive": {"keep": None},
    }
    calibrator: ClassVar[str] = "prunus.calibrate.stepwise_entry:calibrate"
    kind_of_selector: ClassVar[Kind] = "stepwise"

    selector: str | Path | Loaded | None = field(
        default=None, metadata={"help": "folder or name; default: what ships for the model"}
    )
    keep: Keep | None = field(
        default=None, metadata={"help": "tokens per image, or share; none: it stops by itself"}
    )
    mode: Mode | None = field(
        default=None, metadata={"help": "adaptive | fixed | mean; with keep: fixed"}
    )
    bias: float = field(
        default=0.0, metadata={"help": "adaptive: added to STOP's logit; below 0 keeps more"}
    )
    order: Literal["original", "picked"] = field(
        default="original", metadata={"help": "in which the language model reads them"}
    )

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)
        mode = self.mode or ("adaptive" if self.keep is None else "fixed")
        if mode not in ("adaptive", "fixed", "mean"):
            raise PrunusError(f"mode={mode!r}: choose adaptive, fixed or mean")
        if mode == "adaptive" and self.keep is not None:
            raise PrunusError(
                f"keep={self.keep}: in adaptive mode the selector finds its own count; leave keep "
                "out, or choose mode='fixed' or mode='mean'"
            )
        if mode != "adaptive" and self.keep is None:
            raise PrunusError(f"mode={mode!r} needs keep: tokens per image, or a share of them")
        if self.bias and mode != "adaptive":
            raise PrunusError(f"bias={self.bias}: it is for adaptive mode, not for {mode!r}")
        if not math.isfinite(self.bias):
            raise PrunusError(f"bias={self.bias}: give a finite number")
        if self.order not in ("original", "picked"):
            raise PrunusError(f"order={self.order!r}: choose original or picked")
        object.__setattr__(self, "mode", mode)

    @property
    def exact(self) -> bool:
        return self.mode != "mean"

    def select(self, stage: int, view: View) -> Selection:
        there, bias = view.present.shape[1], self.bias
        keep = None
        if view.count is not None:
            count = min(view.count, there)
            if count == there and self.order == "original":
                return Selection(Selection.everything(view).kept)
            if self.mode == "fixed":
                keep = [count] * len(view.owners)
            elif isinstance(self.selector, Loaded):
                share = self.keep if isinstance(self.keep, float) else view.count / view.grid.size
                bias = self.selector.card.bias_for(share)
        return self.chosen(view, keep, bias, self.order == "picked")

    def neutral(self) -> Stepwise:
        return replace(self, keep=1.0, mode="fixed", bias=0.0, order="original")
