"""VisiPruner: no vision in shallow layers, a few tokens in the middle, none in deep layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from prunus.cost.published import dense_flops, nominal_attention, nominal_flops
from prunus.errors import PrunusError
from prunus.families.shapes import DecoderShape
from prunus.grid import AnyGrid
from prunus.method import Cut, Edit, Method, Seen, Selection, View
from prunus.method.calibration import Calibration, Measured, measured_for
from prunus.method.signals import LeaveOneOut
from prunus.method.view import Facts, by_sample
from prunus.signals.critical import Event, Progress, Rule, critical
from prunus.signals.topk import each_place

Stage = Literal["shallow", "middle", "deep"]
STAGES: tuple[Stage, ...] = get_args(Stage)

# What the released code and the paper's recipe do differently.
_PRESETS: dict[str, dict[str, str | bool]] = {
    "code": {"exit_mode": "cumulative", "visual": "keep", "drop_shallow_visual_kv": False},
    "paper": {"exit_mode": "consecutive", "visual": "cut", "drop_shallow_visual_kv": True},
}
_SHALLOW = 0.19  # of all layers: 6 of 32, 8 of 40, 5 of 28
_LATE = 0.6
_LAYER = 0.995
_TOKENS = 0.2  # tied to the scale of LLaVA-1.5-7B's values


@dataclass(frozen=True)
class VisiPruner(Method):
    """VisiPruner (arXiv 2510.17205, section 3): training-free, finds its own count per sample.

    * ``shallow``: in the first S layers text behind the image does not look at it; in layer 0 the
      weight that it gives to visual tokens is put on one of them instead (an attention sink).
    * ``middle``: behind layer S, the first layer in which leaving out one visual token turns the
      last prompt token's attention output to a cosine below ``layer_threshold`` is the filtering
      layer. From the next layer on, only those tokens of all images are there whose absence changed
      that output by more than ``tokens_threshold`` (L2). This happens once per prompt.
    * ``deep``: when in ``exit_count`` layers no survivor turned the output to a cosine below
      ``exit_threshold``, all of them go before the next layer. Without ``middle`` it looks at all
      visual tokens, from ``late_layer`` on.

    ``preset="code"`` counts exit layers that need not follow each other, keeps visual
    self-attention in layers 1 to S - 1 and the cache as it is. ``"paper"`` wants consecutive ones,
    cuts that attention, and drops visual tokens from the cache of shallow layers. In layer 0 both
    keep visual tokens from seeing any visual token. Influence is computed in fp32.
    """

    name = "visipruner"
    paper = "arXiv 2510.17205 (EMNLP 2025)"
    summary = "no vision in early layers, a few tokens, then none"
    measured = ("tokens_threshold",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"preset": "paper"},
        "shallow": {"stages": ("shallow",)},
        "shallow-half": {"stages": ("shallow",), "first_layer": "half"},
        "shallow-renorm": {"stages": ("shallow",), "renormalise": True},
        "middle": {"stages": ("middle",)},
        "deep": {"stages": ("deep",)},
        "middle-deep": {"stages": ("middle", "deep")},
        "noshallow": {"stages": ("middle", "deep"), "shallow_layers": 0},
    }
    calibrator: ClassVar[str] = "prunus.calibrate.visipruner_entry:calibrate"

    preset: Literal["code", "paper"] = field(default="code", metadata={"help": "code | paper"})
    stages: tuple[Stage, ...] = field(default=STAGES, metadata={"help": "of the three"})
    shallow_layers: int | None = field(
        default=None, metadata={"help": "S; 0: none; default: calibration's, or 0.19 of all"}
    )
    first_layer: Literal["merge", "half", "cut"] | None = field(
        default=None,
        metadata={"help": "text sees a sink | the last half | nothing; 40 layers: half"},
    )
    sink: int = field(default=0, metadata={"help": "visual token that layer 0 merges on"})
    visual: Literal["keep", "cut"] | None = field(
        default=None, metadata={"help": "visual self-attention in layers 1..S-1; default: preset's"}
    )
    renormalise: bool = field(
        default=False, metadata={"help": "cut before the softmax, so that it saves work"}
    )
    layer_threshold: float | None = field(
        default=None,
        metadata={"help": "cosine in a filtering layer; default: calibration's, or 0.995"},
    )
    tokens_threshold: float | None = field(
        default=None, metadata={"help": "L2 of a critical token; default: calibration's, or 0.2"}
    )
    relative: float | None = field(
        default=None, metadata={"help": "instead: L2 as a share of the whole output's"}
    )
    min_tokens: int = field(default=0, metadata={"help": "least tokens that the filter keeps"})
    force: bool = field(default=False, metadata={"help": "filter at late_layer if none did"})
    late_layer: int | None = field(default=None, metadata={"help": "default: 0.6 of all"})
    exit_threshold: float = field(default=0.999, metadata={"help": "cosine in an exit layer"})
    exit_count: int = field(default=2, metadata={"help": "exit layers before vision goes"})
    exit_mode: Literal["consecutive", "cumulative"] | None = field(
        default=None, metadata={"help": "how they count; default: preset's"}
    )
    drop_shallow_visual_kv: bool | None = field(
        default=None, metadata={"help": "no visual tokens in shallow layers' cache"}
    )
    decode_without: tuple[int, ...] = field(
        default=(), metadata={"help": "layers whose cache loses visual tokens before decoding"}
    )
    calibration: str | Path | Measured | None = field(
        default=None,
        metadata={"help": "file from `prunus calibrate visipruner`; built-in models have theirs"},
    )

    def __post_init__(self) -> None:
        if self.preset not in _PRESETS:
            raise PrunusError(f"preset={self.preset!r}: choose {' or '.join(_PRESETS)}")
        for name, value in _PRESETS[self.preset].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if isinstance(self.calibration, str | Path):
            Calibration.load(self.calibration)  # what it says is put in by bind(), and fits now
        _check(self)

    def bind(self, model: Facts) -> VisiPruner:
        named = (self.tokens_threshold, self.relative, self.layer_threshold)
        unset = "middle" in self.stages and all(value is None for value in named)
        found = measured_for(self.name, self.calibration, unset, model)
        if found is None:
            return self
        params = found.calibration.params
        names = ["layer_threshold", "shallow_layers"]
        names += ["tokens_threshold"] if self.relative is None else []
        own = {n: params[n] for n in names if getattr(self, n) is None and n in params}
        return replace(self, calibration=found, **own)  # type: ignore[arg-type]

    def remark(self, depth: int) -> str | None:
        """As of :class:`~prunus.method.capabilities.Remarking`."""
        return self.calibration.remark() if isinstance(self.calibration, Measured) else None

    def shallow(self, depth: int) -> int:
        """S, the number of shallow layers of a decoder with ``depth`` layers."""
        if self.shallow_layers is not None:
            return self.shallow_layers
        return max(1, round(_SHALLOW * depth))

    def edits(self, depth: int) -> Mapping[int, Edit]:
        """As of :class:`~prunus.method.capabilities.EditsAttention`."""
        if "shallow" not in self.stages or not self.shallow(depth):
            return {}
        first = self.first_layer or ("half" if depth == 40 else "merge")  # 40: LLaVA-1.5-13B
        rest = Edit("cut", self.visual or "keep", self.renormalise)
        others: dict[int, Edit] = dict.fromkeys(range(1, self.shallow(depth)), rest)
        return {0: Edit(first, "cut", self.renormalise, self.sink), **others}

    def forgets(self, depth: int) -> Sequence[int]:
        """As of :class:`~prunus.method.capabilities.EditsAttention`."""
        shallow = self.drop_shallow_visual_kv and "shallow" in self.stages
        return sorted({*range(self.shallow(depth) if shallow else 0), *self.decode_without})

    @property
    def adaptive(self) -> bool:
        return "middle" in self.stages or "deep" in self.stages

    def cuts(self, depth: int) -> Sequence[Cut]:
        if not self.adaptive:
            return []
        first, late = self._first_seen(depth), self._late(depth)
        unedited = len(self.edits(depth)) <= first < depth - 1
        if not unedited or (self.force and not first <= late < depth - 1):
            raise PrunusError(
                f"visipruner would look at layers {first} to {depth - 2} of {depth} (late_layer "
                f"{late}), which is impossible: choose another shallow_layers or late_layer"
            )
        return [Cut(layer, (LeaveOneOut(layer - 1),)) for layer in range(first + 1, depth)]

    def _first_seen(self, depth: int) -> int:
        """First layer whose attention is looked at; layer S itself is left alone."""
        return self.shallow(depth) + 1 if "middle" in self.stages else self._late(depth)

    def _late(self, depth: int) -> int:
        return math.ceil(_LATE * depth) if self.late_layer is None else self.late_layer

    def choose(self, stage: int, views: Sequence[View]) -> Sequence[Selection]:
        depth = views[0].depth
        layer = self._first_seen(depth) + stage
        samples, states = by_sample(views), views[0].memo
        for sample in samples:
            states.setdefault(sample, Progress(filtered="middle" not in self.stages))
        if all(states[sample].done for sample in samples):
            return [Selection.everything(view) for view in views]
        seen = [view[LeaveOneOut(layer)] for view in views]
        lowest = _lowest([own.cosine for own in seen])
        rule = Rule(
            self.filter_below,
            self.exit_threshold,
            self.exit_count if "deep" in self.stages else 0,
            self.exit_mode == "consecutive",
        )
        events: dict[int, Event] = {}
        kept: dict[tuple[int, int], Tensor] = {}
        above: dict[tuple[int, int], Tensor] = {}  # of those that filter now
        for sample, places in samples.items():
            least = min((lowest[v][row] for v, row in places.values() if lowest[v]), default=1.0)
            forced = self.force and layer == self._late(depth)
            events[sample] = event = states[sample].step(least, rule, forced)
            changes = [seen[v].change[row] for v, row in places.values()]
            owners = [(sample, image) for image in places]
            if event in ("filter", "forced"):
                v, row = next(iter(places.values()))
                masks = critical(changes, self._bound(seen[v].output[row]), self.min_tokens)
                above.update(zip(owners, masks, strict=True))
            else:
                stay = [0 if event == "exit" else len(change) for change in changes]
                every = [torch.arange(n, device=seen[0].change.device) for n in stay]
                kept.update(zip(owners, every, strict=True))
        kept.update(zip(above, each_place(list(above.values())), strict=True))
        for sample in {sample for sample, _ in above}:
            states[sample].done |= not any(len(kept[sample, image]) for image in samples[sample])
        return [
            Selection(
                [kept[owner] for owner in view.owners],
                own.change,
                [events[sample] for sample, _ in view.owners],
            )
            for view, own in zip(views, seen, strict=True)
        ]

    @property
    def filter_below(self) -> float:
        """Cosine below which a layer is the filtering layer."""
        return _LAYER if self.layer_threshold is None else self.layer_threshold

    def _bound(self, output: Tensor) -> float | Tensor:
        """L2 change above which a token is critical; ``output`` is the norm of the whole output."""
        if self.relative is not None:
            return self.relative * output
        return _TOKENS if self.tokens_threshold is None else self.tokens_threshold

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        return 4.0 * present * width  # logits, output, its products with values, their norms

    def published(self, shape: DecoderShape, seen: Seen) -> dict[str, float]:
        """As of :class:`~prunus.method.capabilities.Published`."""
        dense = dense_flops(shape, seen.original)
        counts = (seen.original, seen.per_layer)
        macs, saved = dense, 0.0
        if min(seen.per_layer) < seen.original:  # the paper has no figures for a prompt left alone
            shallow = self.shallow(shape.layers) if "shallow" in self.stages else 0
            macs = nominal_flops(shape, *counts)
            saved = nominal_attention(shape, *counts, text=seen.text, shallow=shallow)
        return {"visual MACs": macs, "of": dense, "visual attention saved": saved}

    def neutral(self) -> VisiPruner:
        return replace(self, stages=(), decode_without=())


def _lowest(cosine: Sequence[Tensor]) -> list[list[float]]:
    """Of each image, by view, the lowest ``cosine [G, n]`` of its tokens; read once for all of
    them. Nothing where there is no token."""
    some = [own.amin(1) for own in cosine if own.shape[1]]
    found = iter(torch.cat(some).tolist() if some else ())
    return [[next(found) for _ in own] if own.shape[1] else [] for own in cosine]


def _check(method: VisiPruner) -> None:
    """Raise PrunusError for parameters out of their range."""
    stages = tuple(method.stages)
    object.__setattr__(method, "stages", stages)
    if not set(stages) <= set(STAGES) or len(set(stages)) != len(stages):
        raise PrunusError(f"stages={stages}: choose some of {', '.join(STAGES)}, each once")
    choices = {
        "first_layer": (None, "merge", "half", "cut"),
        "visual": ("keep", "cut"),
        "exit_mode": ("consecutive", "cumulative"),
    }
    for name, known in choices.items():
        if getattr(method, name) not in known:
            words = " or ".join(str(one) for one in known if one)
            raise PrunusError(f"{name}={getattr(method, name)!r}: choose {words}")
    least = {
        "shallow_layers": 0,
        "late_layer": 0,
        "min_tokens": 0,
        "exit_count": 1,
        "tokens_threshold": 0,
        "relative": 0,
    }
    for name, bound in least.items():
        value = getattr(method, name)
        if value is not None and not bound <= value < math.inf:
            raise PrunusError(f"{name}={value}: it must be at least {bound}")
    if method.relative is not None and method.tokens_threshold is not None:
        raise PrunusError("tokens_threshold and relative are two rules for the same: give one")
    for name in ("layer_threshold", "exit_threshold"):
        value = getattr(method, name)
        if value is not None and not -1 <= value <= 2:
            raise PrunusError(f"{name}={value}: a cosine lies between -1 and 1")
