"""What ``keep`` means: validation early, resolution to a count per image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Protocol, get_args

from prunus.errors import PrunusError, PrunusTypeError, shown

Keep = int | float

#: What a budget counts: what was asked for, as published; or the average over all layers.
Meaning = Literal["nominal", "true"]


def check_keep(keep: object) -> Keep:
    """Return ``keep`` unchanged, or raise: an int >= 1 counts tokens per image, a float in (0, 1]
    is a share of the original count of that image.

    Raises:
        PrunusTypeError: a boolean or something that is no number.
        PrunusError: zero, negative, NaN, or a float above 1.
    """
    hint = "give an int >= 1 (visual tokens per image) or a float in (0, 1] (share of them)"
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise PrunusTypeError(f"keep={shown(keep)} is not a number: {hint}")
    if isinstance(keep, Integral):
        if keep < 1:
            raise PrunusError(f"keep={shown(keep)} keeps nothing: {hint}")
        return int(keep)
    share: Any = keep
    if not 0 < share <= 1:  # also false for NaN
        raise PrunusError(f"keep={shown(keep)} is out of range: {hint}")
    return float(share)


def resolve_keep(keep: Keep, original: int) -> int:
    """Visual tokens to keep of an image that has ``original`` of them: at least 1, at most all.

    A ratio is rounded down; a millionth of a token is added first, so that 1/9 of 576 is 64
    and not 63 by the rounding of floating point.
    """
    if isinstance(keep, int):
        return min(keep, original)
    return max(1, min(original, math.floor(keep * original + 1e-6)))


class Counted(Protocol):
    """What a budget has to know about a method."""

    name: ClassVar[str]
    unit: ClassVar[Literal["image", "frame"]]
    averages: ClassVar[bool]

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        """Tokens left after each stage where ``keep`` are asked for."""

    def cuts(self, depth: int) -> Sequence[Any]:
        """The stages, with their ``layer``."""


class Budget:
    """The one owner of what ``keep`` comes to, for methods that act one after the other.

    Args:
        methods: in the order in which data meets them.
        depth: decoder layers that run.
        meaning: "nominal": the published schedule, and its rule between the published points.
            "true": the stages of the last method are scaled until the average of visual tokens over
            all decoder layers is what it was asked for, within half a token.

    Raises:
        PrunusError: another meaning, or nothing to reach.
    """

    def __init__(
        self, methods: Sequence[Counted], depth: int, meaning: Meaning = "nominal"
    ) -> None:
        if meaning not in get_args(Meaning):
            raise PrunusError(f"budget={shown(meaning)}: choose {' or '.join(get_args(Meaning))}")
        if meaning == "true" and getattr(methods[-1], "keep", None) is None:
            raise PrunusError(
                f"budget='true' needs a count to reach, and {methods[-1].name} has no keep (it "
                "finds its own count): give keep, or choose budget='nominal'"
            )
        self._methods, self._depth, self._meaning = methods, depth, meaning
        self._made: dict[tuple[int, int, int], tuple[int, ...] | None] = {}

    def asked(self, method: Counted, frames: int, size: int) -> float | None:
        """Tokens that ``method`` was asked to keep of an input of ``size`` tokens in ``frames``:
        nominal; None where it finds its own count. Where it has a schedule without ``keep``, the
        average of that over the layers."""
        units, each = (frames, size // frames) if method.unit == "frame" else (1, size)
        keep: Keep | None = getattr(method, "keep", None)
        if keep is not None:
            return float(units * resolve_keep(keep, each))
        counts = _whole(method.counts(None, each, self._depth), each)
        return (
            None if counts is None else units * self._average(method, [each] * self._depth, counts)
        )

    def counts(self, method: Counted, frames: int, size: int) -> tuple[int, ...] | None:
        """Tokens of an input (of a frame, where the method counts so) that are to be left after
        each stage of ``method``; None where it finds its own count.

        Raises:
            PrunusError: a true budget that cannot be reached; the message names the least.
        """
        number = next(n for n, one in enumerate(self._methods) if one is method)
        key = (number, frames, size)
        if key not in self._made:
            self._made[key] = self._counts(method, frames, size)
        return self._made[key]

    def _counts(self, method: Counted, frames: int, size: int) -> tuple[int, ...] | None:
        each = size // frames if method.unit == "frame" else size
        keep: Keep | None = getattr(method, "keep", None)
        target = None if keep is None else resolve_keep(keep, each)
        true = method.averages or (self._meaning == "true" and method is self._methods[-1])
        if target is None or not true:
            return _whole(method.counts(target, each, self._depth), each)
        return self._true(method, target, each, self._entering(method, frames, size))

    def _entering(self, last: Counted, frames: int, size: int) -> list[float]:
        """Tokens that each layer would have without ``last`` and what comes behind it."""
        there = [float(size)] * self._depth
        for method in self._methods:
            if method is last:
                break
            counts = self.counts(method, frames, size)
            if counts is None:
                raise PrunusError(
                    f"budget='true': how many tokens {method.name} leaves is not known before, so "
                    f"{last.name} behind it cannot reach a true average"
                )
            times = frames if method.unit == "frame" else 1
            there = self._left(method, there, [times * count for count in counts])
        return [count / frames for count in there] if last.unit == "frame" else there

    def _true(
        self, method: Counted, target: int, each: int, entering: Sequence[float]
    ) -> tuple[int, ...]:
        def reached(keep: float) -> tuple[tuple[int, ...], float]:
            counts = _whole(method.counts(keep, each, self._depth), each) or ()
            return counts, self._average(method, entering, counts)

        low, high = 0.0, float(each)
        _, found = reached(low)
        if found > target + 0.5:
            raise PrunusError(
                f"budget='true': {method.name} cannot average {target} of {each} visual tokens "
                f"over {self._depth} layers: the least is {found:.1f}, because the layers before "
                "its first stage see more; ask for more, choose earlier layers, or budget='nominal'"
            )
        if reached(high)[1] <= target:
            return reached(high)[0]
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if reached(middle)[1] <= target else (low, middle)
        counts, found = reached(low)
        return self._nearer(method, entering, list(counts), target)

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
                ordered = stage == 0 or more[stage] <= more[stage - 1]
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
        cuts = method.cuts(self._depth)
        layers = [cut.layer or 0 for cut in cuts] or [0] * len(counts)  # no cuts: in the tower
        return [
            min([there, *(n for at, n in zip(layers, counts, strict=True) if at <= layer)])
            for layer, there in enumerate(entering)
        ]


def _whole(counts: Sequence[float] | None, original: int) -> tuple[int, ...] | None:
    """Rounded down (a millionth of a token is added first), at least 1, at most all."""
    if counts is None:
        return None
    return tuple(max(1, min(original, math.floor(count + 1e-6))) for count in counts)
