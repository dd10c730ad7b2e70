"""Methods by name: presets, compositions and settings, as run, demo and eval are told them.

A name is that of a method (``clse``), of a preset of it (``clse@released``, as evaluations are also
called: ``clse-released``), ``path/to/file.py:Class`` (then called by its own name), or of several,
one behind the other (``evoprune+clse``). Settings may follow: ``clse@hybrid:cutoff=0.2``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunus.errors import PrunusError, shown
from prunus.inference.params import field_names, parse_keep, parse_params
from prunus.method import Method, find_method, methods
from prunus.method.registry import build, spelled, unknown_method

#: The name of the unmodified model.
NONE = "none"


@dataclass(frozen=True)
class Named:
    """A method with the ``params`` that its name stands for."""

    name: str
    kind: type[Method]
    params: Mapping[str, Any] = field(default_factory=dict)

    def takes(self, parameter: str) -> bool:
        """Whether there is such a parameter, and the name does not say what it is."""
        return parameter in field_names(self.kind) and parameter not in self.params

    def plain(self) -> Method:
        """The method with nothing but what the name says, even where it does nothing so: to ask
        it about itself."""
        return self.kind(**self.params)

    def make(self, **more: Any) -> Method:
        """The method, with ``more`` parameters, which go before those of the name."""
        return build(self.kind, {**self.params, **more})


def presets_of(kind: type[Method]) -> Mapping[str, Mapping[str, Any]]:
    """Named settings of a method: name to parameters."""
    return kind.presets


def full_name(name: str) -> str:
    """``clse-released``, and ``tome`` where only one method has such a preset, as
    ``method@preset``; names in another case as they are spelled; any other name as it is."""
    known = methods()
    if ".py:" in name:
        return name
    start, at, preset = name.partition("@")
    start = spelled(start, known)
    if start in known:
        return f"{start}@{spelled(preset, presets_of(known[start]))}" if at else start
    low = name.casefold()
    for kind, cls in known.items():
        if low.startswith(f"{kind}-") and low[len(kind) + 1 :] in presets_of(cls):
            return f"{kind}@{low[len(kind) + 1 :]}"
    owners = [kind for kind, cls in known.items() if low in presets_of(cls)]
    return f"{owners[0]}@{low}" if len(owners) == 1 else name


def as_spelled(text: str) -> str:
    """What is named in ``text`` (``EvoPrune+CLSE:keep=64``), as methods and presets are spelled;
    what is unknown stays as it is."""
    parts = []
    for part in text.split("+"):
        start, *settings = re.split(r":(?=\w+=)", part.strip())
        parts.append(":".join([full_name(start), *settings]))
    return "+".join(parts)


def parse_one(text: str) -> Named:
    """One method, with its settings behind colons.

    Raises:
        PrunusError: an unknown method, preset or parameter, or a value of the wrong type.
    """
    start, *settings = re.split(r":(?=\w+=)", text.strip())
    name = full_name(start)
    start = name.partition("@")[0]
    if ".py:" not in start and start not in methods():
        raise unknown_method(start, NONE)
    kind, params = find_method(name)
    own = parse_params(kind, settings)
    _, file, rest = name.rpartition(".py:")
    if file:  # results and tables do not say where a file lies
        name = kind.name + "".join(rest.partition("@")[1:])
    return Named(":".join([name, *settings]), kind, {**params, **own})


def parse(text: str) -> list[Named]:
    """Methods that act one after the other, joined by ``+``.

    Raises:
        PrunusError: as of :func:`parse_one`, or one method twice.
    """
    parts = [part.strip() for part in text.split("+")]
    found = [] if NONE in map(str.lower, parts) else [parse_one(part) for part in parts]
    if len({one.kind for one in found}) < len(parts):
        raise PrunusError(f"the methods {shown(text)}: name different methods, as in evoprune+clse")
    return found


def build_methods(name: str, keep: str | None, params: Sequence[str]) -> tuple[Method, ...] | None:
    """The methods called ``name`` with ``--keep`` and ``--param`` settings (of several: ``0.5,64``,
    ``clse.cutoff=0.2``).

    Returns:
        Instances in the order named, or None for ``"none"`` (the unmodified model).

    Raises:
        PrunusError: unknown method or parameter, a value of the wrong type, ``keep`` for a method
            that finds its own count, not one ``keep`` for each of several methods.
    """
    if name.strip().lower() == NONE:
        if keep is not None or params:
            raise PrunusError(
                "--method none prunes nothing: leave out --keep and --param, or name a method"
            )
        return None
    chosen = parse(name)
    if len(chosen) == 1:
        return (_build(chosen[0], keep, params),)
    keeps: list[str | None] = [None] * len(chosen)
    if keep is not None:
        keeps = list(keep.split(","))
        if len(keeps) != len(chosen):
            raise PrunusError(
                f"--keep {shown(keep)} for {len(chosen)} methods: give one for each, as in "
                "--keep 0.5,64"
            )
    own: dict[str, list[str]] = {one.kind.name: [] for one in chosen}
    for param in params:
        owner, dot, rest = param.partition(".")
        if not dot or owner not in own:
            raise PrunusError(
                f"--param {shown(param)} beside several methods: say whose it is, as in "
                f"{chosen[0].kind.name}.NAME=VALUE"
            )
        own[owner].append(rest)
    return tuple(
        _build(one, one_keep, own[one.kind.name])
        for one, one_keep in zip(chosen, keeps, strict=True)
    )


def _build(one: Named, keep: str | None, params: Sequence[str]) -> Method:
    values = parse_params(one.kind, params)
    if keep is not None:
        if "keep" in values:
            raise PrunusError("keep is given twice: by --keep and by --param")
        if "keep" not in field_names(one.kind):
            raise PrunusError(f"method {shown(one.name)} finds its own count: leave out --keep")
        values["keep"] = parse_keep(keep)
    return one.make(**values)
