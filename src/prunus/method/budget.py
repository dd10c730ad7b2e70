"""What ``keep`` means: validation early, resolution to a count per image."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Protocol, get_args

from prunus.errors import PrunusBudgetError, PrunusError, PrunusTypeError, shown

Keep = int | float

_PERCENT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*")

#: Pairs of shares: asked for, and left.
Points = Sequence[tuple[float, float]]

#: What a budget counts: what was asked for, as published; or the average over all layers.
Meaning = Literal["nominal", "true"]

#: What ``keep`` counts the tokens of: a visual input (a video is one); each frame of it; or the
#: input, whose frames get equal parts, rounded down.
Unit = Literal["image", "frame", "shared"]


@dataclass(frozen=True)
class Curve:
    """In place of a ``keep``: what is left of an image depends on its size. ``asked`` tokens are
    asked for in all, and :func:`left_of` of the ``points`` says which share is left here."""

    asked: int
    points: tuple[tuple[float, float], ...]

    def of(self, original: int) -> float:
        """The share of ``original`` tokens that is left."""
        return left_of(self.points, min(self.asked, original) / original)


def left_of(points: Points, share: float) -> float:
    """What is left where ``share`` is asked for: lines between the ``points``, below them in
    proportion, above them towards everything."""
    return between({asked: (left,) for asked, left in points}, share, 1.0)[0]


def check_keep(keep: object) -> Keep:
    """``keep`` as a number, or raise: an int >= 1 counts tokens per image, a float in (0, 1] is a
    share of the original count of that image, and so is a text in percent, "25%" (and a
    :class:`Curve` is one that knows itself).

    Raises:
        PrunusTypeError: a boolean or something that is no number.
        PrunusError: zero, negative, NaN, or a float above 1.
    """
    hint = (
        "give an int >= 1 (visual tokens per image), or a share of them: a float in (0, 1], or "
        '"25%"'
    )
    if isinstance(keep, Curve):
        return keep  # type: ignore[return-value] # no field's type: compositions make it
    if isinstance(keep, str) and (percent := _PERCENT.fullmatch(keep)):
        share = float(percent[1]) / 100
        if not 0 < share <= 1:
            raise PrunusError(f"keep={shown(keep)} is out of range: {hint}")
        return share
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise PrunusTypeError(f"keep={shown(keep)} is not a number: {hint}")
    if isinstance(keep, Integral):
        if keep < 1:
            raise PrunusError(f"keep={shown(keep)} keeps nothing: {hint}")
        return int(keep)
    number: Any = keep
    if not 0 < number <= 1:  # also false for NaN
        raise PrunusError(f"keep={shown(keep)} is out of range: {hint}")
    return float(number)


def resolve_keep(keep: Keep, original: int) -> int:
    """Visual tokens to keep of an image that has ``original`` of them: at least 1, at most all.

    A ratio is rounded down; a millionth of a token is added first, so that 1/9 of 576 is 64
    and not 63 by the rounding of floating point.
    """
    if isinstance(keep, int):
        return min(keep, original)
    return max(1, min(original, math.floor(keep * original + 1e-6)))


def between(
    published: Mapping[int, Sequence[float]] | Mapping[float, Sequence[float]],
    keep: float,
    original: float,
) -> tuple[float, ...]:
    """The counts of a schedule for ``keep`` tokens of ``original``, where ``published`` has some:
    interpolated between these, in proportion below them and towards all above. All may be shares
    as well, of an ``original`` of 1."""
    none = tuple(0.0 for _ in next(iter(published.values())))
    every = tuple(float(original) for _ in none)
    points = [(0.0, none), *sorted(published.items()), (original, every)]
    for (low, before), (high, after) in itertools.pairwise(points):
        if keep <= high:
            share = (keep - low) / (high - low)
            return tuple(a + share * (b - a) for a, b in zip(before, after, strict=True))
    return every


class Counted(Protocol):
    """What a budget has to know about a method."""

    name: ClassVar[str]
    averages: ClassVar[bool]
    leaves: ClassVar[bool]

    @property
    def unit(self) -> Unit:
        """What ``keep`` counts the tokens of."""

    def parts(self, depth: int = ...) -> Sequence[Any]:
        """What acts: itself, or the methods that it is composed of."""

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        """Tokens left after each stage where ``keep`` are asked for."""

    def cuts(self, depth: int) -> Sequence[Any]:
        """The stages, with their ``layer``."""


class Budget:
    """The one owner of what ``keep`` comes to, for methods that act one after the other.

    Args:
        methods: in any order; data meets them in that of their last cuts. Of a composition its
            parts act, the last of which makes up its average.
        depth: decoder layers that run.
        meaning: "nominal": the published schedule, and its rule between the published points.
            "true": the stages of the last method are scaled until the average of visual tokens over
            all decoder layers is what it was asked for, within half a token.

    Attributes:
        last: the method that data meets last: its count is what is left.

    Raises:
        PrunusError: another meaning, or a true one of a count that nobody knows before.
    """

    def __init__(
        self, methods: Sequence[Counted], depth: int, meaning: Meaning = "nominal"
    ) -> None:
        if meaning not in get_args(Meaning):
            raise PrunusError(f"budget={shown(meaning)}: choose {' or '.join(get_args(Meaning))}")
        self._depth, self._meaning = depth, meaning
        self._parts = {id(method): tuple(method.parts(depth)) for method in methods}
        self._averaging = {id(own.parts(depth)[-1]) for own in methods if own.averages}
        acting: list[Counted] = [part for own in methods for part in self._parts[id(own)]]
        self._layers = {id(method): _layers(method, depth) for method in acting}
        self._methods = sorted(acting, key=lambda method: self._layers[id(method)][-1:])
        self.last = self._methods[-1]
        self._made: dict[tuple[int, int, int], tuple[int, ...] | None] = {}
        if meaning == "true":
            self._check_known()

    def asked(self, method: Counted, frames: int, size: int) -> float | None:
        """Tokens that ``method`` was asked to keep of an input of ``size`` tokens in ``frames``:
        nominal; None where it finds its own count. Where it has a schedule without ``keep``, the
        average of that over the layers."""
        units, each = (1, size) if method.unit == "image" else (frames, size // frames)
        keep = _keep_of(method, size)
        if keep is not None and method.unit == "shared":
            return float(resolve_keep(keep, size))
        if keep is not None:
            return float(units * resolve_keep(keep, each))
        counts = self._scheduled(method, None, each)
        return (
            None if counts is None else units * self._average(method, [each] * self._depth, counts)
        )

    def counts(self, method: Counted, frames: int, size: int) -> tuple[int, ...] | None:
        """Tokens of an input (of a frame, where the method counts or shares so) that are to be left
        after each stage of ``method``; None where it finds its own count.

        Raises:
            PrunusBudgetError: a true budget that cannot be reached; the message names the least. Or
                less than one token for each frame.
        """
        key = (id(method), frames, size)
        if key not in self._made:
            composed = self._parts.get(id(method), (method,)) != (method,)
            found = self._of_parts if composed else self._counts
            self._made[key] = found(method, frames, size)
        return self._made[key]

    def per_layer(self, size: int) -> list[float] | None:
        """Visual tokens in each decoder layer for an image of ``size`` tokens; None where a method
        finds its own count.

        Raises:
            PrunusBudgetError: as of :meth:`counts`.
        """
        there = [float(size)] * self._depth
        for method in self._methods:
            if self._layers[id(method)]:
                counts = self.counts(method, 1, size)
                if counts is None:
                    return None
                there = self._left(method, there, counts)
        return there

    def least(self, size: int) -> float | None:
        """The lowest average over the layers that can be had of an image of ``size`` tokens by
        asking the last method for less; None where it finds its own count, or takes none away."""
        if not self.removes(self.last) or self.finds_own_count(self.last):
            return None
        counts = self._scheduled(self.last, 1e-6, size) or ()
        return self._average(self.last, self._entering(self.last, 1, size), counts)

    def removes(self, method: Counted) -> bool:
        """Whether ``method`` takes tokens away."""
        return bool(self._layers[id(method)])

    def met_before(self, first: Counted, second: Counted) -> bool:
        """Whether data meets all stages of ``first`` before the last one of ``second``."""
        return self._layers[id(first)][-1] <= self._layers[id(second)][-1]

    def _check_known(self) -> None:
        """Raise PrunusError unless all counts are known before anything runs."""
        hint = "choose the nominal budget"
        if getattr(self.last, "keep", None) is None or self.finds_own_count(self.last):
            raise PrunusError(
                f"a true budget needs a count to reach, and {self.last.name} has no keep (it finds "
                f"its own count): give keep, or {hint}"
            )
        for method in self._methods[:-1]:
            if self._layers[id(method)] and self.finds_own_count(method):
                raise PrunusError(
                    f"true budget: how many tokens {method.name} leaves is not known before, so "
                    f"{self.last.name} behind it cannot reach a true average: {hint}"
                )

    def finds_own_count(self, method: Counted) -> bool:
        """Whether ``method`` finds its own count, whatever it looks at."""
        keep = getattr(method, "keep", None)
        some = 576  # of what size does not matter
        return method.counts(None if keep is None else some / 2, some, self._depth) is None

    def _of_parts(self, method: Counted, frames: int, size: int) -> tuple[int, ...] | None:
        """Of a composition: what its parts leave one after the other, those in the tower apart
        unless there is nothing else."""
        parts = self._parts[id(method)]
        behind = [part for part in parts if self._layers[id(part)] > [-2]] or parts
        found: list[int] = []
        for part in behind:
            counts = self.counts(part, frames, size)
            if counts is None:
                return None
            for count in counts:
                found.append(min([*found[-1:], count]))
        return tuple(found)

    def _counts(self, method: Counted, frames: int, size: int) -> tuple[int, ...] | None:
        each = size if method.unit == "image" else size // frames
        target = self._target(method, frames, size)
        true = id(method) in self._averaging or (self._meaning == "true" and method is self.last)
        if target is None or not true:
            return self._scheduled(method, target, each)
        return self._true(method, target, each, self._entering(method, frames, size))

    def _target(self, method: Counted, frames: int, size: int) -> int | None:
        """What ``keep`` comes to, of an input or of a frame."""
        keep = _keep_of(method, size)
        if keep is None or method.unit == "image":
            return None if keep is None else resolve_keep(keep, size)
        if method.unit == "frame":
            return resolve_keep(keep, size // frames)
        shared = resolve_keep(keep, size) // frames
        if not shared:
            raise PrunusBudgetError(
                f"{method.name} cannot share keep={shown(keep)} of {size} visual tokens among "
                f"{frames} frames, each of which keeps one at least: ask for {frames} or more"
            )
        return shared

    def _scheduled(
        self, method: Counted, keep: float | None, original: int
    ) -> tuple[int, ...] | None:
        """What ``method`` itself says: rounded down (a millionth of a token is added first), at
        least 1 (but where it says 0 of a method that lets vision leave), at most all.

        Raises:
            PrunusError: not one number for each stage.
        """
        counts = method.counts(keep, original, self._depth)
        if counts is None:
            return None
        stages = max(1, len(self._layers[id(method)]))
        if len(counts) != stages or not all(math.isfinite(count) for count in counts):
            raise PrunusError(
                f"{method.name}.counts returned {shown(list(counts))}: give one number for each of "
                f"its {stages} stages (or None, if it finds its own count)"
            )
        return tuple(
            0 if method.leaves and not count else max(1, min(original, math.floor(count + 1e-6)))
            for count in counts
        )

    def _entering(self, last: Counted, frames: int, size: int) -> list[float]:
        """Tokens that each layer would have without ``last`` and what comes behind it."""
        there = [float(size)] * self._depth
        for method in self._methods:
            if method is last:
                break
            counts = self.counts(method, frames, size) if self._layers[id(method)] else None
            if counts is not None:
                times = 1 if method.unit == "image" else frames
                there = self._left(method, there, [times * count for count in counts])
        return there if last.unit == "image" else [count / frames for count in there]

    def _true(
        self, method: Counted, target: int, each: int, entering: Sequence[float]
    ) -> tuple[int, ...]:
        def reached(keep: float) -> tuple[tuple[int, ...], float]:
            counts = self._scheduled(method, keep, each) or ()
            return counts, self._average(method, entering, counts)

        low, high = 1e-6, float(each)  # of nothing, stages that vision leaves were all of them
        most, reachable = reached(high)
        if target == each or abs(reachable - target) <= 0.5:
            return most
        start = f"{method.name} cannot average {target} of {each} visual tokens over {self._depth}"
        if reachable < target:
            raise PrunusBudgetError(
                f"{start} layers: the most is {reachable:.1f}, because methods before it leave no "
                f"more; ask for {math.floor(reachable + 0.5)} or less, or for more from these"
            )
        found = reached(low)[1]
        if found > target + 0.5:
            nominal = "" if id(method) in self._averaging else ", or choose the nominal budget"
            raise PrunusBudgetError(
                f"{start} layers: the least is {found:.1f}, because the layers before its first "
                f"stage see more; ask for {math.ceil(found - 0.5)} or more, name earlier layers"
                f"{nominal}"
            )
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if reached(middle)[1] <= target else (low, middle)
        return self._nearer(method, entering, list(reached(low)[0]), target)

    def _nearer(
        self, method: Counted, entering: Sequence[float], counts: list[int], target: int
    ) -> tuple[int, ...]:
        """``counts`` with single tokens added to single stages, as long as that comes nearer."""
        best = abs(self._average(method, entering, counts) - target)
        better = True
        while better:
            better = False
            for stage in range(len(counts)):
                more = [count + (at == stage) for at, count in enumerate(counts)]
                ordered = counts[stage] > 0 and (stage == 0 or more[stage] <= more[stage - 1])
                off = abs(self._average(method, entering, more) - target)
                if ordered and off < best - 1e-9:
                    counts, best, better = more, off, True
        return tuple(counts)

    def _average(self, method: Counted, entering: Sequence[float], counts: Sequence[int]) -> float:
        """Visual tokens per layer where ``entering`` would be there without ``method``."""
        return sum(self._left(method, entering, counts)) / self._depth

    def _left(
        self, method: Counted, entering: Sequence[float], counts: Sequence[int]
    ) -> list[float]:
        layers = self._layers[id(method)]
        return [
            min([there, *(n for at, n in zip(layers, counts, strict=True) if at <= layer)])
            for layer, there in enumerate(entering)
        ]


def _keep_of(method: Counted, size: int) -> Keep | None:
    """Its ``keep`` for an input of ``size`` tokens."""
    keep: Keep | Curve | None = getattr(method, "keep", None)
    return keep.of(size) if isinstance(keep, Curve) else keep


def _layers(method: Counted, depth: int) -> list[int]:
    """At which layers ``method`` takes tokens away: -1 before the language model, -2 in the tower;
    empty where it takes none."""
    if cuts := method.cuts(depth):
        return [-1 if cut.layer is None else cut.layer for cut in cuts]
    # A protocol of its own, which stands above this: prunus.method.capabilities.MergesInTower.
    return [-2] if getattr(method, "in_tower", None) is not None else []
