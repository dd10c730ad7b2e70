"""Compositions: methods that act one behind the other, under one name, as data."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from prunus.errors import PrunusError, PrunusTypeError, shown
from prunus.method.base import DEPTH, Method
from prunus.method.budget import Budget, Curve, Keep, check_keep, left_of
from prunus.method.places import Cut
from prunus.method.registry import build, find_method
from prunus.method.view import Facts

C = TypeVar("C", bound="Composition")


@dataclass(frozen=True)
class Stage:
    """One method of a composition.

    Attributes:
        method: its name, with a preset where there is one to use: ``evoprune@tome``.
        leaves: pairs (average asked for, what this stage leaves), both as shares of the original
            tokens; between them lines, below the first in proportion, above the last towards
            (1, 1). Of the last stage none: it makes up the average.
        params: its other parameters.
        depth: of these the numbers of decoder layers, as shares of all layers (rounded, at least
            1), so that a composition has the same shape on every model.
    """

    method: str
    leaves: tuple[tuple[float, float], ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    depth: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        objects = (self.params, self.depth)
        if not isinstance(self.method, str) or not all(isinstance(o, Mapping) for o in objects):
            raise PrunusTypeError(
                f"a stage of method={shown(self.method)}, params={shown(self.params)} and "
                f"depth={shown(self.depth)}: give a name and objects"
            )
        for name, share in self.depth.items():
            if not isinstance(share, int | float) or not 0 <= share < 1:
                raise PrunusError(
                    f"stage {self.method}: depth {name}={shown(share)}: give a share of the "
                    "decoder layers, from 0 to below 1"
                )
        if "keep" in self.params and self.leaves:
            raise PrunusError(f"stage {self.method}: give what it leaves, or its keep, not both")
        object.__setattr__(self, "leaves", _points(self.method, self.leaves))

    @classmethod
    def of(cls, given: Any) -> Stage:
        """``given`` if it is a stage, else one of its fields by name, as JSON has them.

        Raises:
            PrunusError: something else.
        """
        if isinstance(given, Stage):
            return given
        known = [one.name for one in dataclasses.fields(cls)]
        if not isinstance(given, Mapping) or not {"method"} <= set(given) <= set(known):
            raise PrunusError(
                f"stage {shown(given)}: give an object with method and, where it has some, leaves "
                "and params"
            )
        return cls(**given)

    def made(self, keep: Keep, last: bool, layers: int) -> Method:
        """The method on a decoder of so many ``layers``, where ``keep`` is the average asked for.

        Raises:
            PrunusError: it does not say what it leaves, or takes no ``keep``.
        """
        kind, own = find_method(self.method)
        if issubclass(kind, Composition):
            raise PrunusError(f"stage {self.method} is a composition: name its methods instead")
        placed = {name: max(1, round(share * layers)) for name, share in self.depth.items()}
        params = {**own, **self.params, **placed}
        takes = "keep" in {one.name for one in dataclasses.fields(kind) if one.init}  # type: ignore[arg-type]
        if (self.leaves or last) and not takes:
            raise PrunusError(
                f"stage {self.method} takes no keep: "
                + ("let one that does be the last" if last else "leave out what it leaves")
            )
        if last:
            params["keep"] = keep
        elif self.leaves:
            params["keep"] = _resolved(keep, self.leaves)
        elif takes and "keep" not in params:
            raise PrunusError(f"stage {self.method}: say what it leaves, only the last need not")
        return build(kind, params)


@dataclass(frozen=True)
class Composition(Method):
    """Several methods under one name: for an average of visual tokens over all decoder layers
    (``keep``), which methods with which settings stand one behind the other.

    A named one is a subclass with a ``name`` and a default for ``stages``, or a preset of one. The
    engine sees its parts; the last of them makes up the average, within half a token, whatever
    the meaning of the budget is.
    """

    averages = True
    default: ClassVar[Sequence[Any]] = ()

    keep: Keep = field(
        default=1 / 9, metadata={"help": "average over all layers: tokens per image, or share"}
    )
    stages: Any = field(
        default=None, metadata={"help": "what stands behind each other; default: as it is named"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        given = type(self).default if self.stages is None else self.stages
        if isinstance(given, str | Mapping) or not isinstance(given, Sequence) or not given:
            raise PrunusError(f"stages={shown(given)}: give a list of stages, one at least")
        stages = tuple(Stage.of(one) for one in given)
        last = len(stages) - 1
        if stages[last].leaves or "keep" in stages[last].params:
            raise PrunusError(
                f"stage {stages[last].method} is the last, which makes up the average that is "
                "asked for: do not say what it leaves"
            )
        object.__setattr__(self, "stages", stages)
        self.parts()  # refuses what cannot be made now

    @cached_property
    def _made(self) -> dict[int, tuple[Method, ...]]:
        """Parts by the depth that they are for."""
        return {}

    @property
    def title(self) -> str:
        """``prunus@lean: tome + divprune``."""
        named = [
            f"{self.name}@{preset}"
            for preset, values in self.presets.items()
            if "stages" in values and tuple(map(Stage.of, values["stages"])) == self.stages
        ]
        name = self.name if self.stages == _default(type(self)) else (named or [self.name])[0]
        return f"{name}: {' + '.join(part.name for part in self.parts())}"

    def parts(self, depth: int = DEPTH) -> Sequence[Method]:
        if (bound := vars(self).get("_bound")) is not None:
            return bound  # type: ignore[no-any-return]
        if depth not in self._made:
            last = len(self.stages) - 1
            self._made[depth] = tuple(
                one.made(self.keep, at == last, depth) for at, one in enumerate(self.stages)
            )
        return self._made[depth]

    def bind(self: C, model: Facts) -> C:
        """With parts that are bound to ``model``.

        Raises:
            PrunusError: a part refuses it, or an average cannot be made of these in this order.
        """
        bound = replace(self)
        parts = tuple(part.bind(model) for part in self.parts(model.depth))
        _check_order(parts, model.depth)
        vars(bound)["_bound"] = parts
        return bound

    def cuts(self, depth: int) -> Sequence[Cut]:
        """Those of all parts."""
        return [cut for part in self.parts(depth) for cut in part.cuts(depth)]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        """What the parts with cuts leave, each by its own rule."""
        share = 1.0 if keep is None else keep / original
        found: list[float] = []
        for stage, part in zip(self.stages, self.parts(depth), strict=True):
            if not part.cuts(depth):
                continue
            own = original * (left_of(stage.leaves, share) if stage.leaves else share)
            counts = part.counts(own, original, depth)
            if counts is None:
                return None
            found += counts
        return found

    @property
    def adaptive(self) -> bool:
        return any(part.adaptive for part in self.parts())


def _default(kind: type[Composition]) -> tuple[Stage, ...]:
    """Stages of a composition of which none are given."""
    return tuple(map(Stage.of, kind.default))


def _points(name: str, given: Any) -> tuple[tuple[float, float], ...]:
    """Pairs of shares, ascending.

    Raises:
        PrunusError: they are none.
    """
    try:
        points = tuple((float(asked), float(left)) for asked, left in given)
    except (TypeError, ValueError, OverflowError) as error:
        raise PrunusError(f"stage {name}: leaves={shown(given)} are no pairs of shares") from error
    line = [*points, (1.0, 1.0)]
    rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(line))
    if not rising or not all(0 <= asked <= left <= 1 and left > 0 for asked, left in points):
        raise PrunusError(
            f"stage {name}: leaves={shown(given)}: give pairs (average asked for, share left), "
            "both rising, with as much left as is asked for at least, below 1"
        )
    return points


def _resolved(keep: Keep, points: tuple[tuple[float, float], ...]) -> Any:
    """What a stage leaves where an average of ``keep`` is asked for: a share, or, of a number of
    tokens, what depends on how many there are."""
    return Curve(keep, points) if isinstance(keep, int) else left_of(points, keep)


def _check_order(parts: Sequence[Method], depth: int) -> None:
    """Raise PrunusError unless data meets the parts in their order, and knows all counts."""
    budget = Budget(parts, depth)
    for before, behind in itertools.pairwise(part for part in parts if budget.removes(part)):
        if not budget.met_before(before, behind):
            raise PrunusError(
                f"{before.name} comes before {behind.name} in a composition, but data meets them "
                "the other way round: change their order or layers"
            )
    for part in parts:
        if budget.removes(part) and budget.finds_own_count(part):
            raise PrunusError(
                f"{part.name} finds its own count, so an average cannot be asked of a composition "
                "with it: say how many it keeps, or name the methods one by one"
            )
