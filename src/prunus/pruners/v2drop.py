"""V2Drop: tokens that a layer hardly changed go, in three stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Cut, Method, View
from prunus.method.budget import Keep, between, check_keep
from prunus.method.signals import States
from prunus.signals.change import moved

_PUBLISHED, _DEPTH = (3, 17, 22), 32


@dataclass(frozen=True)
class V2Drop(Method):
    """V2Drop (xuyang-liu16/V2Drop): at the inputs of ``layers``, the tokens stay that the layer
    before changed most (L2 norm of the difference of hidden states). Each stage leaves a share
    ``ratios`` of what it finds, rounded down, one token at least. Positions stay, and so do the
    caches of earlier layers.

    Released: layers 3, 17, 22 of 32 with 0.5, 0.5, 0, which is an average of 202.8 of 576 over all
    layers; other depths have theirs in proportion. With ``keep``, the average, all stages are
    scaled until it is reached. "192", "128" and "64" are schedules of ours that average so; the
    published ones are not known. "qwen2-vl" is released for that model's 28 layers.
    """

    name = "v2drop"
    paper = "xuyang-liu16/V2Drop"
    summary = "what the layer before changed most, in three stages"
    averages = True
    presets = {
        "paper": {},
        "192": {"ratios": (267 / 576, 133 / 267, 0.0)},
        "128": {"ratios": (143 / 576, 71 / 143, 0.0)},
        "64": {"ratios": (19 / 576, 8 / 19, 0.0)},
        "qwen2-vl": {"layers": (3, 16, 22), "ratios": (0.25, 0.05, 0.0)},
    }

    keep: Keep | None = field(
        default=None, metadata={"help": "average tokens per layer, or share; none: by ratios"}
    )
    layers: tuple[int, ...] | None = field(
        default=None, metadata={"help": "layers at whose input tokens go; default: as released"}
    )
    ratios: tuple[float, ...] = field(
        default=(0.5, 0.5, 0.0), metadata={"help": "what each leaves of what it finds, 0 to 1"}
    )

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)
        if not self.ratios or not all(0 <= ratio <= 1 for ratio in self.ratios):
            raise PrunusError(f"ratios={self.ratios}: give a share from 0 to 1 for each layer")
        stages = len(_PUBLISHED if self.layers is None else self.layers)
        if len(self.ratios) != stages:
            raise PrunusError(
                f"ratios={self.ratios}: there are {stages} layers at whose input tokens go, give "
                "one for each"
            )
        if self.layers is not None and min(self.layers) < 1:
            raise PrunusError(f"layers={self.layers}: some layer must have run before: from 1 on")

    def cuts(self, depth: int) -> Sequence[Cut]:
        layers = _in_proportion(depth) if self.layers is None else self.layers
        return [Cut(layer, (States(layer - 1),)) for layer in layers]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float]:
        found, there = [], float(original)
        for ratio in self.ratios:
            there = max(1, int(there * ratio + 1e-6))
            found.append(there)
        return found if keep is None else between({found[0]: found}, keep, original)

    def score(self, stage: int, view: View) -> Tensor:
        layer = self.cuts(view.depth)[stage].layer or 1
        return moved(view.states, view[States(layer - 1)])

    def neutral(self) -> V2Drop:
        return V2Drop(ratios=(1.0,) * len(self.ratios), layers=self.layers)


def _in_proportion(depth: int) -> list[int]:
    """3, 17, 22 of 32, and the same shares of other depths, one behind the other."""
    found: list[int] = []
    for layer in _PUBLISHED:
        found.append(max(layer * depth // _DEPTH, found[-1] + 1 if found else 1))
    return found
