"""CLSE: keep the visual tokens whose high-frequency content changes most between layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid, Grid
from prunus.method import Cut, Method, View
from prunus.method.budget import Keep, between, check_keep, resolve_keep
from prunus.method.signals import Ahead, Attention, Signal, States
from prunus.signals.change import mean_shift, residual_norm
from prunus.signals.spectral import (
    Tiling,
    at_each_resolution,
    evolution,
    gate,
    high_frequency,
    z_score,
)

# The released three-stage schedule, given for a 32-layer decoder and a budget of 192.
_STAGE_LAYERS = (1, 11, 21)
_STAGE_KEEP = (330, 210, 62)
# As it is released for images of any size: shares of the original tokens, by nominal share.
_STAGE_SHARES: Mapping[float, Sequence[float]] = {
    0.112: (0.19, 0.12, 0.034),
    0.223: (0.38, 0.24, 0.066),
    0.334: (0.57, 0.36, 0.098),
}

Variant = Literal["paper", "hybrid", "released"]
Spectrum = Literal["2d", "3d"]
Schedule = Literal["counts", "shares"]
Score = Literal["clse", "clse_attn", "attn", "residual", "mean"]
_SPECTRAL, _ATTENTION = ("clse", "clse_attn"), ("clse_attn", "attn")


@dataclass(frozen=True)
class CLSE(Method):
    """Cross-Layer Spectral Evolution (arXiv 2606.24165, section 3.2 and appendix C.1).

    * ``paper``: one stage, score = evolution intensity I (Eq. 11), no attention anywhere.
    * ``hybrid``: one stage, sigmoid of the z-score of I times the last prompt token's attention
      (Eq. 22).
    * ``released``: three stages as in the published code, hybrid at the first, attention alone at
      the later ones, earlier layers' cache trimmed. ``keep`` is nominal there: 192 keeps 330, 210,
      62 tokens; other budgets scale by the same rule, rounded down. ``schedule="shares"`` is the
      one released for images of any size: 0.334 keeps 0.57, 0.36, 0.098 of the original tokens;
      0.223 and 0.112 are listed as well, and others lie between (theirs fail in the released code).

    Ablations (Fig. 5): ``cutoff=0`` (no filter); the scores ``residual`` (SFR) and ``mean`` (MMD)
    of :mod:`prunus.signals.change`, which need no grid; ``invert`` (CLSE-I), which negates any
    score and so keeps the lowest. The paper inverts one stage; ``released``, whose later stages are
    attention alone, has no such reading and is refused.

    ``ahead`` (ours, of ``paper`` alone): nothing but the first layer's output is asked, which no
    token behind the image reaches; so that layer runs on the image's tokens alone, before the
    language model, which then has the chosen ones in every layer. Text in front of the image, which
    the first layer would have seen as well, is not there: the choice is near that of ``paper``, and
    the same where a prompt begins with its only image. It costs one layer over the whole image.

    Each image has its own grid, normalisation and budget; ``keep`` counts tokens per image. A video
    counts as one: the spectrum is taken in each temporal slice, all else over the whole video.
    ``spectrum="3d"`` (Table 6) transforms a video over time as well; on an image it is the same.

    An image in tiles (InternVL) has a spectrum of each tile, or with ``tiles="global"`` one of all
    tiles put together. Tiles and thumbnail have statistics of their own: the mean in Eq. 11, mean
    and deviation of the z-score, which then is the score in ``paper`` as well. The best tokens of
    both together stay.
    """

    name = "clse"
    paper = "arXiv 2606.24165 (ECCV 2026)"
    summary = "tokens whose fine spatial detail changes most between layers"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hybrid": {"variant": "hybrid"},
        "released": {"variant": "released"},
        "attn": {"score_type": "attn"},
        "attn-released": {"variant": "released", "score_type": "attn"},
        "3d": {"spectrum": "3d"},
        "global": {"tiles": "global"},
        "ahead": {"ahead": True},
        "qwen2-vl": {
            "variant": "released",
            "schedule": "shares",
            "keep": 0.334,
            "trim_cache": False,
        },
        "video-llava": {"variant": "hybrid", "reference": 2, "layers": (3,), "keep": 194},
    }
    compared: ClassVar[tuple[str, ...]] = ("hybrid", "released", "attn", "attn-released")

    keep: Keep = field(default=1 / 3, metadata={"help": "tokens per image, or share of them"})
    variant: Variant = field(default="paper", metadata={"help": "paper | hybrid | released"})
    score_type: Score | None = field(
        default=None,
        metadata={"help": "clse | clse_attn | attn | residual | mean; default: the variant's own"},
    )
    reference: int = field(default=0, metadata={"help": "layer whose input is the reference"})
    layers: tuple[int, ...] | int | None = field(
        default=None, metadata={"help": "layers at whose input tokens go; default: the variant's"}
    )
    cutoff: float = field(default=0.1, metadata={"help": "r of the Gaussian high-pass, in [0, 1]"})
    temperature: float = field(default=0.1, metadata={"help": "of the sigmoid gate, > 0"})
    trim_cache: bool | None = field(
        default=None, metadata={"help": "trim earlier layers' cache; default: only `released`"}
    )
    invert: bool = field(default=False, metadata={"help": "keep the lowest scores; one stage only"})
    spectrum: Spectrum = field(
        default="2d", metadata={"help": "of each frame | 3d: over a video's frames as well"}
    )
    schedule: Schedule = field(
        default="counts", metadata={"help": "`released`: counts of 576 | shares of any number"}
    )
    tiles: Tiling = field(
        default="local", metadata={"help": "a spectrum of each tile | global: of all together"}
    )
    ahead: bool = field(
        default=False, metadata={"help": "choose before the language model, by the image alone"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        if self.variant not in ("paper", "hybrid", "released"):
            raise PrunusError(f"variant={self.variant!r}: choose paper, hybrid or released")
        if self.score_type not in (None, *get_args(Score)):
            known = ", ".join(get_args(Score))
            raise PrunusError(f"score_type={self.score_type!r}: choose from {known}")
        if self.invert and self.variant == "released":
            raise PrunusError("invert=True with variant='released': it is for paper and hybrid")
        if self.ahead and (self.variant != "paper" or self.scoring in _ATTENTION):
            raise PrunusError("ahead=True is of variant='paper', and of scores without attention")
        if self.ahead and (self.reference or self.layers is not None or self.trim_cache):
            raise PrunusError("ahead=True has no reference, layers or trim_cache: it asks layer 0")
        if self.schedule == "shares" and self.variant != "released":
            raise PrunusError("schedule='shares' is of variant='released': other variants have one")
        if not 0.0 <= self.cutoff <= 1.0:
            raise PrunusError(f"cutoff={self.cutoff}: the share of the spectrum must be in [0, 1]")
        if not 0.0 < self.temperature < math.inf:
            raise PrunusError(f"temperature={self.temperature}: it must be positive and finite")
        if self.layers is not None:
            given = (self.layers,) if isinstance(self.layers, int) else tuple(self.layers)
            wanted = len(_STAGE_LAYERS) if self.variant == "released" else 1
            if len(given) != wanted:
                raise PrunusError(f"layers={self.layers}: variant {self.variant} has {wanted}")
            object.__setattr__(self, "layers", given)

    @property
    def scoring(self) -> Score:
        """The score of the first stage."""
        return self.score_type or ("clse" if self.variant == "paper" else "clse_attn")

    def cuts(self, depth: int) -> Sequence[Cut]:
        if self.ahead:
            return [Cut(None, (Ahead(),), whole=self.scoring in _SPECTRAL)]
        trim = self.variant == "released" if self.trim_cache is None else self.trim_cache
        cuts = []
        for stage, layer in enumerate(self._stage_layers(depth)):
            sees: list[Signal[Any]] = []
            if stage == 0 and self.scoring != "attn":
                sees.append(States(self.reference))
            if stage or self.scoring in _ATTENTION:
                sees.append(Attention(layer - 1))
            whole = stage == 0 and self.scoring in _SPECTRAL
            cuts.append(Cut(layer, tuple(sees), trim, whole=whole))
        return cuts

    def _stage_layers(self, depth: int) -> tuple[int, ...]:
        if self.layers is not None:
            return self.layers if isinstance(self.layers, tuple) else (self.layers,)
        if self.variant != "released":
            return (1,)
        # Rounding up gives the published 1/10/19 at 28 layers and 1/14/27 at 40.
        return (1, *(math.ceil(layer * depth / 32) for layer in _STAGE_LAYERS[1:]))

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        if keep is None or self.variant != "released":
            return super().counts(keep, original, depth)
        if keep >= original:
            return [original] * len(_STAGE_KEEP)
        if self.schedule == "counts":
            return [keep * part / 192 for part in _STAGE_KEEP]
        share = keep / original
        if isinstance(self.keep, float):  # not what rounding down left of it
            share = self.keep * keep / resolve_keep(self.keep, original)
        listed = _STAGE_SHARES.get(share)
        if listed is not None:
            return [int(original * part) for part in listed]  # as released, to the last bit
        return [original * part for part in between(_STAGE_SHARES, share, 1.0)]

    def score(self, stage: int, view: View) -> Tensor:
        scores = self._score(stage, view)
        return -scores if self.invert else scores

    def _score(self, stage: int, view: View) -> Tensor:
        layer = self._stage_layers(view.depth)[stage]
        if stage > 0 or self.scoring == "attn":
            return view[Attention(layer - 1)]
        if self.ahead:
            before, after = view[Ahead()]
        else:
            before, after = view[States(self.reference)], view.states
        if self.scoring not in _SPECTRAL:
            change = residual_norm if self.scoring == "residual" else mean_shift
            return change(after, before)
        grid = view.grid
        now, then = self._map(after, grid), self._map(before, grid)
        intensity = at_each_resolution(grid, evolution, now, then)
        if self.scoring == "clse":  # the gate is monotone in z and I, and saturates: rank by these
            several = len(grid.resolutions) > 1
            return at_each_resolution(grid, z_score, intensity) if several else intensity
        opened = at_each_resolution(grid, partial(gate, temperature=self.temperature), intensity)
        return opened * view[Attention(layer - 1)]

    def _map(self, states: Tensor, grid: AnyGrid) -> Tensor:
        over_time = self.spectrum == "3d"
        return high_frequency(states, grid, self.cutoff, over_time=over_time, tiles=self.tiles)

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        if stage > 0 or self.scoring not in _SPECTRAL:
            return 0.0  # additions only, like the norms that no cost counts
        over_time = self.spectrum == "3d" and grid.frames > 1
        times = grid.frames if over_time else 0
        seen: Iterable[Grid] = grid.parts
        if self.tiles == "local":
            seen = (tile for part in grid.parts for band in part.tiles for tile in band)
        sides = sum(part.size * (part.rows + part.cols + times) for part in seen)
        return 2.0 * sides * width  # two maps, two axes or three
