"""The cells of the table: a method at a budget, or a control."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from prunus.errors import PrunusError
from prunus.evaluate.coverage import best_tokens
from prunus.grid import AnyGrid
from prunus.method import Method, methods
from prunus.method.budget import Keep, check_keep, resolve_keep
from prunus.method.view import Facts
from prunus.pruners.clse import CLSE
from prunus.pruners.evoprune import EvoPrune
from prunus.pruners.fixed import Fixed
from prunus.pruners.mmr import MMR
from prunus.pruners.one_shot import OneShot
from prunus.pruners.random import Random
from prunus.pruners.stepwise import Stepwise
from prunus.pruners.uniform import Uniform
from prunus.pruners.visipruner import VisiPruner
from prunus.tasks.scenes import Scene
from prunus.tasks.videos import VideoScene

Shown = Literal["own", "other", "none"]

#: The papers' budgets: 192, 128 and 64 of 576 visual tokens.
RATIOS: tuple[Keep, ...] = (1 / 3, 2 / 9, 1 / 9)

#: What is known of an image or video that was drawn.
Drawn = Scene | VideoScene

#: One method, or several that act one after the other.
Methods = Method | tuple[Method, ...]

#: Configurations with names of their own; other methods are taken with their defaults.
NAMED: dict[str, tuple[Callable[..., Method], dict[str, Any]]] = {
    "clse": (CLSE, {}),
    "clse-hybrid": (CLSE, {"variant": "hybrid"}),
    "clse-released": (CLSE, {"variant": "released"}),
    "attn": (CLSE, {"score_type": "attn"}),
    "attn-released": (CLSE, {"variant": "released", "score_type": "attn"}),
    "evoprune": (EvoPrune, {}),
    "evoprune-hidden": (EvoPrune, {"metric": "hidden"}),
    "evoprune-noattn": (EvoPrune, {"protect": 0.0}),
    "evoprune-nodiv": (EvoPrune, {"diversity": 0.0}),
    "tome": (EvoPrune, {"protect": 0.0, "diversity": 0.0}),
    "random": (Random, {}),
    "uniform": (Uniform, {}),
}

#: Those that need a selector trained for the model, and so are asked only by name; and the
#: training-free control that works as they do.
LEARNED: dict[str, tuple[Callable[..., Method], dict[str, Any]]] = {
    "stepwise": (Stepwise, {}),
    "stepwise-mean": (Stepwise, {"mode": "mean"}),
    "stepwise-no-stop": (Stepwise, {"selector": "no-stop"}),
    "one-shot": (OneShot, {}),
    "mmr": (MMR, {}),
    "mmr-diversity": (MMR, {"weight": 0.0}),
}

#: Those that find their own count, and so are asked once and not at every budget.
OWN_COUNT: dict[str, Methods] = {
    "visipruner": VisiPruner(),
    "visipruner-paper": VisiPruner(preset="paper"),
    "visipruner-shallow": VisiPruner(stages=("shallow",)),
    "visipruner-shallow-half": VisiPruner(stages=("shallow",), first_layer="half"),
    "visipruner-shallow-renorm": VisiPruner(stages=("shallow",), renormalise=True),
    "visipruner-middle": VisiPruner(stages=("middle",)),
    "visipruner-deep": VisiPruner(stages=("deep",)),
    "visipruner-middle-deep": VisiPruner(stages=("middle", "deep")),
    "visipruner-noshallow": VisiPruner(stages=("middle", "deep"), shallow_layers=0),
    "stepwise-adaptive": Stepwise(),
    "evoprune+visipruner": (
        EvoPrune(keep=1 / 3),
        VisiPruner(stages=("middle", "deep")),
    ),
}
GROUND_TRUTH = "ground-truth"
BLIND, OTHER = "blind", "other-image"
_SHOWN: dict[str, Shown] = {BLIND: "none", OTHER: "other"}

#: The tower leaves half of the tokens, the decoder's first layer the budget of them.
BOTH = "evoprune+clse"
_IN_TOWER = 0.5

DEFAULT = (*NAMED, BOTH, "visipruner", GROUND_TRUTH, BLIND, OTHER)


@dataclass(frozen=True)
class Cell:
    """One column of answers.

    ``shown`` says which image the model is given: its own, that of another question (a control in
    which everything but the content is as usual), or none at all. ``method`` is None where nothing
    is pruned and for the ground truth, which differs from sample to sample; ``keep`` is None where
    nothing is pruned or the method finds its own count.
    """

    name: str
    keep: Keep | None = None
    seed: int | None = None
    method: Methods | None = None
    shown: Shown = "own"

    @property
    def key(self) -> str:
        """Unique short text, e.g. ``random@0.1111#2``."""
        share = "" if self.keep is None else f"@{self.keep:.4g}"
        return f"{self.name}{share}" + ("" if self.seed is None else f"#{self.seed}")

    @property
    def methods(self) -> tuple[Method, ...]:
        """Those that are known before anything is asked."""
        if self.method is None:
            return ()
        return self.method if isinstance(self.method, tuple) else (self.method,)

    def fitted(self, model: Facts) -> Cell:
        """The same with what its methods have learned for ``model`` at hand, so that it is not
        loaded for every batch.

        Raises:
            PrunusError: a method that does not fit.
        """
        fitted = tuple(method.bind(model) for method in self.methods)
        if not fitted:
            return self
        return replace(self, method=fitted if isinstance(self.method, tuple) else fitted[0])

    @property
    def prunes(self) -> bool:
        """Whether anything is removed."""
        return self.keep is not None or self.method is not None

    def method_for(
        self, asked: Sequence[tuple[Drawn | None, Sequence[int]]], grids: Sequence[AnyGrid]
    ) -> Methods:
        """The method for a batch; ``asked`` are scene and objects of each sample's question, and
        ``grids`` where the visual tokens of its image or video lie.

        Raises:
            PrunusError: a ground truth for images whose objects are unknown.
        """
        if self.method is not None:
            return self.method
        if self.keep is None:
            raise PrunusError(f"{self.name} prunes nothing")
        return Fixed(
            [
                [ground_truth(scene, objects, self.keep, grid)]
                for (scene, objects), grid in zip(asked, grids, strict=True)
            ]
        )


def ground_truth(scene: Drawn | None, asked: Sequence[int], keep: Keep, grid: AnyGrid) -> list[int]:
    """Ascending tokens that an all-knowing observer would keep: exactly ``keep`` of the grid.

    Raises:
        PrunusError: ``scene`` is None.
    """
    if scene is None:
        raise PrunusError("the ground truth needs scenes: it is for the built-in evaluation set")
    count = resolve_keep(keep, grid.size)
    return [int(n) for n in best_tokens(scene, asked, count, grid)]


def make_cells(
    names: Sequence[str] = DEFAULT,
    keeps: Sequence[Keep] = RATIOS,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[Cell]:
    """The dense model and controls that prune nothing, then for every budget all methods of
    ``names``; single-stage ones in the decoder cut at the same layer (1). ``seeds`` are for those
    that have one.

    Raises:
        PrunusError: an unknown name, one without ``keep``, a repeated or impossible budget, no
            seed.
    """
    keeps = [check_keep(keep) for keep in keeps]
    if len(set(keeps)) != len(keeps) or len(set(names)) != len(names):
        raise PrunusError("a method or a budget is given twice")
    if not seeds or len(set(seeds)) != len(seeds):
        raise PrunusError("give one or more different seeds")
    cells = [Cell("dense")]
    cells += [Cell(name, shown=_SHOWN[name]) for name in names if name in _SHOWN]
    cells += [Cell(name, method=OWN_COUNT[name]) for name in names if name in OWN_COUNT]
    for keep in keeps:
        for name in names:
            if name not in _SHOWN and name not in OWN_COUNT:
                cells += _of_method(name, keep, seeds)
    return cells


def _of_method(name: str, keep: Keep, seeds: Sequence[int]) -> list[Cell]:
    if name == GROUND_TRUTH:
        return [Cell(name, keep)]
    if name == BOTH:
        if isinstance(keep, float) and keep > _IN_TOWER:
            raise PrunusError(f"{name}: the tower leaves {_IN_TOWER:.0%}, {keep:g} cannot be kept")
        return [Cell(name, keep, None, (EvoPrune(keep=_IN_TOWER), CLSE(keep=keep)))]
    known = methods()
    named = NAMED | LEARNED
    if name not in named and name not in known:
        choices = sorted({*DEFAULT, *LEARNED, *OWN_COUNT, *known})
        close = get_close_matches(name, choices, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise PrunusError(f"unknown method {name!r}: {hint}there are {', '.join(choices)}")
    build: Any
    build, params = named.get(name, (known.get(name), {}))
    fields = {field.name for field in dataclasses.fields(build)}
    if "keep" not in fields:
        raise PrunusError(f"method {name!r} takes no budget and cannot be compared at one")
    if "seed" not in fields:
        return [Cell(name, keep, None, build(keep=keep, **params))]
    return [Cell(name, keep, seed, build(keep=keep, seed=seed, **params)) for seed in seeds]
