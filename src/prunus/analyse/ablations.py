"""The settings of CLSE's own ablations in small: its Tables 7 and 8, and Figures 5 and 9."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prunus.analyse.measure import Setting
from prunus.method import View
from prunus.method.signals import Attention, States
from prunus.pruners.clse import CLSE
from prunus.pruners.random import Random
from prunus.signals.spectral import at_each_resolution, evolution, high_frequency

#: Budgets of the layer sweep (CLSE's Fig. 9 has five ratios that its text does not name), and the
#: two at which everything else is compared: 192 and 64 of 576.
RATIOS = (1 / 2, 1 / 3, 2 / 9, 1 / 9, 1 / 18)
BUDGETS = (1 / 3, 1 / 9)
CUTOFFS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
TEMPERATURES = (0.01, 0.1, 1.0, 10.0)
_SEEDS = 3


@dataclass(frozen=True)
class Ungated(CLSE):
    """Intensity times attention, without z-score and sigmoid: our reading of "no z-score" in the
    paper's Table 7, which gives no formula."""

    def score(self, stage: int, view: View) -> Tensor:
        maps = (
            high_frequency(states, view.grid, self.cutoff)
            for states in (view.states, view[States(self.reference)])
        )
        intensity = at_each_resolution(view.grid, evolution, *maps)
        return intensity * view[Attention(self._stage_layers(view.depth)[stage] - 1)]


@dataclass(frozen=True)
class Cell:
    """One measurement: which ``sweep`` it belongs to, at which ``place`` there, under which
    settings (several: seeds, whose mean is taken)."""

    sweep: str
    place: str | float
    keep: float
    settings: tuple[Setting, ...]
    layer: int = 1


def layers_of(depth: int) -> list[int]:
    """Layers to prune at: 1, 2, 3, 5, 7 and 9 of twelve, and of deeper models the first three and
    the same shares of the depth."""
    chosen = {1, 2, 3, *(round(depth * share / 12) for share in (5, 7, 9))}
    return sorted(layer for layer in chosen if 0 < layer < depth)


def draws(keep: float, seed: int) -> tuple[Setting, ...]:
    """Random choices of as many tokens, with several seeds."""
    return tuple((Random(keep, seed + number),) for number in range(_SEEDS))


def cells(depth: int, seed: int) -> list[Cell]:
    """Everything that is measured."""
    layers = layers_of(depth)
    found = [
        Cell("layer", layer, keep, _one(CLSE(keep=keep, variant="hybrid", layers=(layer,))), layer)
        for keep in RATIOS
        for layer in layers
    ]
    for keep in BUDGETS:
        hybrid = CLSE(keep=keep, variant="hybrid")
        found += [
            Cell("cutoff", cutoff, keep, _one(CLSE(keep=keep, cutoff=cutoff))) for cutoff in CUTOFFS
        ]
        found.append(Cell("temperature", "no z-score", keep, _one(Ungated(keep, "hybrid"))))
        found += [
            Cell("temperature", t, keep, _one(CLSE(keep, "hybrid", temperature=t)))
            for t in TEMPERATURES
        ]
        for layer in layers:
            for name, reference in (("global", 0), ("adjacent", layer - 1)):
                method = CLSE(keep=keep, layers=(layer,), reference=reference)
                found.append(Cell(f"reference, {name}", layer, keep, _one(method), layer))
        rivals: list[tuple[str, tuple[Setting, ...]]] = [
            ("CLSE", _one(CLSE(keep=keep))),
            ("hybrid", _one(hybrid)),
            ("attention", _one(CLSE(keep=keep, score_type="attn"))),
            ("SFR", _one(CLSE(keep=keep, score_type="residual"))),
            ("MMD", _one(CLSE(keep=keep, score_type="mean"))),
            ("CLSE-I", _one(CLSE(keep=keep, invert=True))),
            ("random", draws(keep, seed)),
        ]
        found += [Cell("score", name, keep, settings) for name, settings in rivals]
    return found


def _one(method: CLSE) -> tuple[Setting, ...]:
    return ((method,),)
