"""At which settings each method is tried: between them they use everything the engine does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.errors import PrunusError
from prunus.families import Family
from prunus.inference.named import Named, parse_one
from prunus.method import Method, methods

_KEEP = 0.3
_AVERAGE = 0.7


@dataclass(frozen=True)
class Trial:
    """One method at one setting.

    Attributes:
        name: of the method; setting: in words.
        make: gives the method; raises where that is refused.
        forced: what to try instead where the method finds nothing to do.
    """

    name: str
    setting: str
    make: Callable[[], Method]
    forced: Callable[[], Method] | None = None


def trials(chosen: Sequence[str | Method] | None, family: Family, least: int) -> list[Trial]:
    """Trials of the ``chosen`` methods, as they are given or by name: with presets and settings,
    those in files too (:mod:`prunus.inference.named`); None for all that there are. ``least`` is
    the number of visual tokens of the smallest image.

    Raises:
        PrunusError: an unknown name; the message lists what exists.
    """
    found = []
    for one in methods() if chosen is None else chosen:
        if isinstance(one, Method):
            found.append(Trial(one.name, "as given", lambda method=one: method))  # type: ignore[misc]
        else:
            found += _of(parse_one(one), family, least)
    return found


def _of(named: Named, family: Family, least: int) -> list[Trial]:
    depth, name = len(family.layers), named.kind.name
    forced = _forced(name, depth, least)
    # What has no keep by itself knows what to do without.
    given = named.takes("keep") and getattr(named.kind, "keep", None) is not None
    # An average has to leave something to the layers before the first cut.
    share = _AVERAGE if named.kind.averages else _KEEP
    default: list[dict[str, Any]] = [{"keep": share} if given else {}]
    # A name with settings is one trial.
    known = {} if named.params else _settings(depth, least, family)
    found = []
    for more in known.get(name, default):
        params = {**more, **named.params}
        other = None if forced is None else _maker(named, {**more, **forced}, family)
        found.append(Trial(named.name, _words(params), _maker(named, more, family), other))
    if (
        name == "visipruner" and forced and not named.params
    ):  # whatever its thresholds find: all stages
        more = {**forced, "preset": "paper"}
        found.append(Trial(named.name, "preset=paper, made to act", _maker(named, more, family)))
    return found


def _settings(depth: int, least: int, family: Family) -> Mapping[str, Sequence[dict[str, Any]]]:
    """Parameters of the trials of the methods that are known here."""
    if recurrent := family.recurrent:
        return _few(least, [n for n in range(depth) if n not in recurrent], depth - 1, depth // 2)
    if readers := family.readers:
        last = min(readers.values())
        return _few(least, [*range(last)], last, min(depth // 2, last))
    middle = depth // 2
    some = list(range(0, least, 3))
    return {
        "clse": [{"keep": _KEEP}, {"keep": _KEEP, "variant": "released"}],
        "evoprune": [{"keep": 0.5}],
        "fixed": [{"indices": some, "layer": middle, "trim_cache": True}],
        "knockout": [
            {"layers": (0, middle)},
            {"layers": (middle,), "mask": "both", "renormalise": True, "forget": True},
        ],
        "random": [{"keep": _KEEP}, {"keep": _KEEP, "layer": None}],
        "stepwise": [{}],
        "visipruner": [{}],
    }


def _few(
    least: int, attended: Sequence[int], last: int, middle: int
) -> Mapping[str, Sequence[dict[str, Any]]]:
    """The same where few layers have attention and a cache of their own: looks and edits in those
    ``attended`` only, cuts up to the ``last`` one (and one in the ``middle``), and caches that are
    left alone."""
    behind = [layer + 1 for layer in attended if layer + 1 <= last]
    found: dict[str, Sequence[dict[str, Any]]] = {
        "evoprune": [{"keep": 0.5}],
        "fixed": [{"indices": list(range(0, least, 3)), "layer": middle}],
        "random": [{"keep": _KEEP}, {"keep": _KEEP, "layer": None}],
        "stepwise": [{}],
    }
    if attended:
        some = tuple(dict.fromkeys((attended[0], attended[-1])))
        found["knockout"] = [
            {"layers": some},
            {"layers": some[-1:], "mask": "both", "renormalise": True, "forget": True},
        ]
        found["pyramiddrop"] = [{"layers": tuple(attended[:3])}]
    if late := [layer for layer in attended if layer]:
        found["vscan"] = [{"keep": _KEEP, "layer": late[0]}]
    if len(late) > 1:
        found["duet"] = [{"keep": _KEEP, "layers": tuple(late[:2])}]
    if behind:
        hybrid = {"keep": _KEEP, "variant": "hybrid", "layers": behind[0]}
        found["clse"] = [{"keep": _KEEP}, hybrid]
        found["fastv"] = [{"keep": _KEEP, "layer": behind[0]}]
    if len(behind) > 2:
        for name in ("sparsevlm", "sparsevlm-plus"):
            found[name] = [{"keep": _KEEP, "layers": tuple(behind[:3])}]
    return found


def _forced(name: str, depth: int, least: int) -> dict[str, Any] | None:
    """Parameters at which a method that decides by itself acts, whatever the prompt."""
    if name == "stepwise":
        return {"keep": _KEEP}
    if name != "visipruner":
        return None
    return {
        "layer_threshold": 2,  # every layer may filter
        "relative": 1.0,
        "min_tokens": max(1, least // 4),
        "exit_threshold": -1,  # and every layer counts towards the exit
        "exit_count": max(1, depth // 4),
    }


def _maker(named: Named, more: dict[str, Any], family: Family) -> Callable[[], Method]:
    def make() -> Method:
        homes = getattr(named.kind, "families", None)
        if homes is not None and family.name not in homes:
            raise PrunusError(f"{named.kind.name} is for {', '.join(homes)}, not {family.name}")
        return named.make(**more)

    return make


def _words(params: Mapping[str, Any]) -> str:
    def value(given: Any) -> str:
        return f"{len(given)} tokens" if isinstance(given, list) else str(given)

    return ", ".join(f"{name}={value(given)}" for name, given in params.items()) or "defaults"
