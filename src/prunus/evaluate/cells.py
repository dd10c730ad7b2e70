"""The cells of the table: a method at a budget, or a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from prunus.errors import PrunusError
from prunus.evaluate.coverage import best_tokens
from prunus.grid import AnyGrid
from prunus.inference.named import NONE, Named, parse
from prunus.inference.params import field_names
from prunus.method import Method, methods
from prunus.method.budget import Keep, Meaning, check_keep, resolve_keep
from prunus.method.registry import required, spelled
from prunus.method.view import Facts
from prunus.pruners.fixed import Fixed
from prunus.selector.learned import Learned
from prunus.tasks.scenes import Scene
from prunus.tasks.videos import VideoScene

Shown = Literal["own", "other", "none"]

#: The papers' budgets: 192, 128 and 64 of 576 visual tokens.
RATIOS: tuple[Keep, ...] = (1 / 3, 2 / 9, 1 / 9)

#: What is known of an image or video that was drawn.
Drawn = Scene | VideoScene

#: One method, or several that act one after the other.
Methods = Method | tuple[Method, ...]

GROUND_TRUTH = "ground-truth"
BLIND, OTHER, DENSE = "blind", "other-image", "dense"
_SHOWN: dict[str, Shown] = {BLIND: "none", OTHER: "other"}

#: What stands between the parts of a cell's name.
_SIGNS = "|#@+:,"

#: Share of the tokens that a method leaves to the one behind it, where its name says no other.
_TO_THE_NEXT = 0.5


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
        self,
        asked: Sequence[tuple[Drawn | None, Sequence[int]]],
        grids: Sequence[AnyGrid],
        meaning: Meaning = "nominal",
    ) -> Methods:
        """The method for a batch; ``asked`` are scene and objects of each sample's question, and
        ``grids`` where the visual tokens of its image or video lie. The ground truth is cut where
        random choice is, or, of a true budget, before the language model.

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
            ],
            layer=None if meaning == "true" else Fixed.layer,
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


def default_names() -> list[str]:
    """What is compared where nothing is named: every method that needs nothing trained and either
    takes a budget or finds its own, with those of its presets that are ``compared``, and the
    controls. Not those whose ``keep`` is an average, which small budgets may be beyond."""
    found: list[str] = []
    for name, kind in methods().items():
        if issubclass(kind, Learned) or kind.averages or required(kind):
            continue
        if _takes(kind, "keep") or kind().adaptive:
            found += [name, *(f"{name}@{preset}" for preset in kind.compared)]
    return [*found, GROUND_TRUTH, BLIND, OTHER]


def _takes(kind: type[Method], parameter: str) -> bool:
    return parameter in field_names(kind)


def make_cells(
    names: Sequence[str] | None = None,
    keeps: Sequence[Keep] = RATIOS,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[Cell]:
    """The dense model and controls that prune nothing; methods that find their own count; then for
    every budget all others of ``names``. ``seeds`` are for those that have one.

    Args:
        names: methods as of :mod:`prunus.inference.named`, and controls; None: the
            :func:`default_names`. Of ``evoprune+clse`` the budget is the last one's, and those
            before it leave half of the tokens (``evoprune:keep=0.3+clse``: so many).
        keeps: budgets.
        seeds: for methods that draw lots.

    Raises:
        PrunusError: an unknown name, one without ``keep``, a repeated or impossible budget, no
            seed.
    """
    keeps = [check_keep(keep) for keep in keeps]
    chosen = [_chosen(name) for name in (default_names() if names is None else names)]
    if len(set(keeps)) != len(keeps) or len({one.name for one in chosen}) != len(chosen):
        raise PrunusError("a method or a budget is given twice")
    names_of = {f"{keep:.4g}": keep for keep in keeps}
    if len(names_of) != len(keeps):
        first = next(keep for keep in keeps if keep not in names_of.values())
        raise PrunusError(
            f"budget {first!r} and another one are {first:.4g} to four digits, by which they are "
            "told apart: leave one of them out"
        )
    if not seeds or len(set(seeds)) != len(seeds):
        raise PrunusError("give one or more different seeds")
    cells = [Cell(DENSE)]
    cells += [Cell(one.name, shown=_SHOWN[one.name]) for one in chosen if one.name in _SHOWN]
    for one in chosen:
        if one.methods and not one.budgeted:
            cells += _of(one, None, seeds)
    for keep in keeps:
        for one in chosen:
            if one.budgeted:
                cells += _of(one, keep, seeds)
    return cells


@dataclass(frozen=True)
class _Chosen:
    """A name of the list, with the methods that it stands for; none of a control."""

    name: str
    methods: tuple[Named, ...] = ()

    @property
    def budgeted(self) -> bool:
        """Whether it is asked at every budget."""
        return self.name == GROUND_TRUTH or any(one.takes("keep") for one in self.methods[-1:])


def cell_name(name: str) -> str:
    """What the cells of a name that :func:`make_cells` takes are called.

    Raises:
        PrunusError: an unknown name.
    """
    return _chosen(name).name


def _chosen(name: str) -> _Chosen:
    name = spelled(name, (GROUND_TRUTH, *_SHOWN))
    if name in (GROUND_TRUTH, *_SHOWN):
        return _Chosen(name)
    try:
        found = parse(name)
    except PrunusError as error:
        controls = ", ".join((GROUND_TRUTH, *_SHOWN))
        raise PrunusError(f"{error} (controls: {controls})") from error
    for one in found:
        own = one.kind.name
        if not own or own in (DENSE, NONE, GROUND_TRUTH, *_SHOWN) or set(own) & set(_SIGNS):
            raise PrunusError(
                f"a method called {own!r} cannot be compared: results are told apart by names, so "
                f"give it one that is no control and has none of {_SIGNS} in it"
            )
    chosen = _Chosen("+".join(one.name for one in found), tuple(found))
    last = found[-1]
    if not chosen.budgeted and "keep" not in last.params and not last.plain().adaptive:
        raise PrunusError(f"method {name!r} takes no budget and cannot be compared at one")
    return chosen


def _of(chosen: _Chosen, keep: Keep | None, seeds: Sequence[int]) -> list[Cell]:
    if not chosen.methods:
        return [Cell(chosen.name, keep)]
    settings: list[dict[str, Any]] = []
    for one in chosen.methods[:-1]:
        share = one.params.get("keep", _TO_THE_NEXT)
        if isinstance(keep, float) and isinstance(share, float) and keep > share:
            raise PrunusError(
                f"{chosen.name}: {one.name} leaves {share:.0%}, {keep:g} cannot be kept"
            )
        settings.append({"keep": share} if one.takes("keep") else {})
    settings.append({} if keep is None else {"keep": keep})
    seeded = [one.takes("seed") for one in chosen.methods]
    cells = []
    for seed in seeds if any(seeded) else (None,):
        made = tuple(
            one.make(**own, **({"seed": seed} if drawn else {}))
            for one, own, drawn in zip(chosen.methods, settings, seeded, strict=True)
        )
        cells.append(Cell(chosen.name, keep, seed, made[0] if len(made) == 1 else made))
    return cells
