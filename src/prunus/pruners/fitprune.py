"""FitPrune: a few tokens go behind the attention of every layer, as many as were fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from prunus.cost.published import fitted_flops
from prunus.errors import PrunusError
from prunus.families.shapes import DecoderShape
from prunus.method import Cut, Method, Seen, Selection, View
from prunus.method.budget import Keep, between, check_keep
from prunus.method.calibration import Calibration, Measured, measured_for
from prunus.method.signals import Attention, TextMask
from prunus.method.view import Facts
from prunus.signals.schedule import left, stretched

#: Tokens of 576 that go in each of 32 layers, by the share of the visual FLOPs that this saves: as
#: released for LLaVA-1.5-7B.
# fmt: off
RELEASED: Mapping[float, tuple[int, ...]] = {
    0.6: (14, 33, 89, 36, 36, 20, 55, 21, 18, 4, 7, 5, 2, 5, 7, 4,
          26, 5, 11, 24, 4, 18, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0),
    0.7: (48, 79, 118, 41, 33, 17, 36, 9, 9, 2, 3, 2, 1, 3, 4, 8,
          18, 7, 8, 20, 4, 13, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0),
    0.8: (128, 127, 118, 35, 26, 8, 13, 3, 2, 1, 0, 0, 0, 2, 1, 8,
          7, 8, 5, 11, 2, 6, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0),
    0.9: (262, 153, 80, 19, 13, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1,
          1, 2, 1, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0),
}
# fmt: on
_TOKENS, _RATIO = 576, 0.7


@dataclass(frozen=True)
class FitPrune(Method):
    """FitPrune (arXiv 2409.10197): behind each layer's attention the n tokens go that have the
    least of ``cross * self``, where for each query the largest head counts: cross is what they get
    from the text behind the image, self what they get from its own tokens.

    Published code takes them out between attention and MLP of layer l, whose keys and values still
    hold them; here they go at the input of layer l + 1. Nothing reads what that MLP makes of them,
    so that all outputs are the same; that MLP runs on them, which costs more (an average of 187.9
    tokens per layer instead of 172.6 at 70 %), and is counted. What the last layer would drop
    stays.

    How many go is a table. Those released for LLaVA-1.5-7B save 60, 70, 80 and 90 % of the visual
    FLOPs (``ratio``; between them shares are interpolated). For other depths and images, ours: the
    share of the tokens that is left behind a layer is read at the same part of the depth, and
    rounded down. ``prunus calibrate fitprune`` makes a table for a model, which ``calibration``
    reads, or give your own (``deleted``, of ``tokens``).

    ``keep`` is the *average* over all layers, which the paper's budgets are about: the table is
    scaled to reach it. Rows of other papers at 192, 128 and 64 are nearest to 70, 80 and 90 %.
    """

    name = "fitprune"
    paper = "arXiv 2409.10197"
    summary = "a few in every layer, by what text and image attend to"
    averages = True
    measured = ("deleted", "tokens")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{f"{100 * ratio:.0f}": {"ratio": ratio} for ratio in RELEASED},
        **{str(keep): {"keep": keep} for keep in (192, 128, 64)},
    }
    calibrator: ClassVar[str] = "prunus.calibrate.fitprune_entry:calibrate"

    keep: Keep | None = field(
        default=None, metadata={"help": "average tokens per layer, or share; none: by table"}
    )
    ratio: float | None = field(
        default=None, metadata={"help": "share of visual FLOPs that released tables save: 0.7"}
    )
    deleted: tuple[int, ...] | None = field(
        default=None, metadata={"help": "tokens that go in each layer: a table of your own"}
    )
    tokens: int | None = field(
        default=None, metadata={"help": "of how many tokens per image that table is"}
    )
    calibration: str | Path | Measured | None = field(
        default=None,
        metadata={"help": "file from `prunus calibrate fitprune`; built-in models have theirs"},
    )

    def __post_init__(self) -> None:
        if self.keep is not None:
            check_keep(self.keep)
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise PrunusError(f"ratio={self.ratio}: give a share of the FLOPs, in [0, 1)")
        tables: dict[str, Any] = {"ratio": self.ratio, "deleted": self.deleted}
        if not isinstance(self.calibration, Measured):  # which put its table there
            tables["calibration"] = self.calibration
        given = [name for name, value in tables.items() if value is not None]
        if len(given) > 1:
            raise PrunusError(f"{' and '.join(given)} are two tables for the same: give one")
        if (self.deleted is None) != (self.tokens is None):
            raise PrunusError("deleted and tokens belong together: give both or none")
        if self.deleted is not None and self.tokens is not None:
            _check(self.deleted, self.tokens)
        if isinstance(self.calibration, str | Path):
            Calibration.load(self.calibration)  # what it says is put in by bind(), and fits now

    def bind(self, model: Facts) -> FitPrune:
        unset = self.ratio is None and self.deleted is None
        found = measured_for(self.name, self.calibration, unset, model)
        if found is None:
            return self
        return replace(self, calibration=found, **found.calibration.params)  # type: ignore[arg-type]

    def cuts(self, depth: int) -> Sequence[Cut]:
        if self.deleted is not None and len(self.deleted) != depth:
            raise PrunusError(
                f"deleted names {len(self.deleted)} layers, the decoder has {depth}: give one "
                "number for each, or calibrate"
            )
        return [Cut(layer + 1, (*_signals(layer), TextMask())) for layer in range(depth - 1)]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float]:
        if self.deleted is not None and self.tokens is not None:
            own = left(self.deleted, self.tokens)[: depth - 1]
            share = (1 + sum(own)) / depth  # what the layers see on average
            tables = {share: own}
        else:
            share = 1 - (_RATIO if self.ratio is None else self.ratio)
            tables = {
                1 - ratio: stretched(left(table, _TOKENS), depth)
                for ratio, table in RELEASED.items()
            }
        if keep is not None:
            share = keep / original
        return [original * part for part in between(tables, share, 1)]

    def choose(self, stage: int, views: Sequence[View]) -> Sequence[Selection]:
        if all(view.present.shape[1] <= (view.count or 0) for view in views):
            return [Selection.everything(view) for view in views]  # and nothing is looked at
        return [self.select(stage, view) for view in views]

    def select(self, stage: int, view: View) -> Selection:
        cross, own = (view[signal] for signal in _signals(stage))
        chosen = self.rank(stage, view, cross * own)
        rows = view.present.shape[1] + view[TextMask()].shape[1]
        return replace(chosen, macs=float(own.numel() * rows * view.states.shape[-1]))

    def remark(self, depth: int) -> str | None:
        if isinstance(self.calibration, Measured):
            return self.calibration.remark()
        released = len(next(iter(RELEASED.values())))
        if self.deleted is not None or depth == released:
            return None
        return (
            f"{self.name} is not calibrated for this model: its table was released for a decoder "
            f"of {released} layers, and is read at the same parts of {depth} (`prunus calibrate "
            f"{self.name}` makes one)"
        )

    def published(self, shape: DecoderShape, seen: Seen) -> dict[str, float]:
        dense = fitted_flops(shape, [seen.original] * shape.layers)
        return {"visual MACs": fitted_flops(shape, seen.per_layer), "of": dense}


def _signals(layer: int) -> tuple[Attention, Attention]:
    """Means, not sums: neither by how many rows changes the order of an image's tokens."""
    return Attention(layer, "text", "max"), Attention(layer, "visual", "max")


def _check(deleted: Sequence[int], tokens: int) -> None:
    """Raise PrunusError for a table that leaves nothing, or brings tokens back."""
    if not deleted or min(deleted) < 0 or sum(deleted) >= tokens:
        raise PrunusError(
            f"deleted takes {sum(deleted)} of tokens={tokens}: give a number from 0 on for each "
            "layer, together less than all"
        )
