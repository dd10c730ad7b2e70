"""Whether a JSON value has the form that a type says, and where it has not."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from prunus.errors import shown

_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


def misfit(value: Any, kind: Any, place: str = "") -> str | None:
    """What in ``value`` is not of the form ``kind``, in words that begin with its place
    (``runs[0].tokens is 'x', and has to be a number``); None where all of it is.

    Args:
        value: as a parser of JSON gives it.
        kind: a TypedDict, ``list[...]``, ``dict[str, ...]``, a union of these, a plain type, Any.
            A number is finite, and no bool; keys that a TypedDict does not name may be anything.
        place: what the value is called.
    """
    return next(_misfits(value, kind, place), None)


def _misfits(value: Any, kind: Any, place: str) -> Iterator[str]:
    if kind is Any:
        return
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        yield from _of_none(value, get_args(kind), place)
    elif not _is_plainly(value, origin or kind):
        yield f"{place or 'it'} is {shown(value)}, and has to be {_words(kind)}"
    elif is_typeddict(kind):
        yield from _of_keys(value, kind, place)
    elif origin is list:
        for number, one in enumerate(value):
            yield from _misfits(one, get_args(kind)[0], f"{place}[{number}]")
    elif origin is dict:
        for name, one in value.items():
            yield from _misfits(one, get_args(kind)[1], f"{place}[{shown(name)}]")


def _of_none(value: Any, kinds: tuple[Any, ...], place: str) -> Iterator[str]:
    """Of a union: nothing where one of ``kinds`` fits, else what is wrong with the one that is of
    the same JSON type."""
    found = [misfit(value, one, place) for one in kinds]
    if None not in found:
        alike = [
            why
            for why, one in zip(found, kinds, strict=True)
            if _is_plainly(value, get_origin(one) or one)
        ]
        words = " or ".join(_words(one) for one in kinds)
        yield (alike or [None])[0] or f"{place} is {shown(value)}, and has to be {words}"


def _of_keys(value: Mapping[str, Any], kind: Any, place: str) -> Iterator[str]:
    for name, own in _hints(kind).items():
        if name in value:
            yield from _misfits(value[name], own, f"{place}.{name}" if place else name)
        elif name in kind.__required_keys__:
            yield f"{place or 'it'} has no {name!r}"


@lru_cache(maxsize=64)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_plainly(value: Any, kind: Any) -> bool:
    """Whether ``value`` is of the JSON type behind ``kind``, whatever is inside."""
    if kind is Any:
        return True
    if isinstance(value, bool):  # which Python takes for a whole number
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and _finite(value)
    return isinstance(value, dict if is_typeddict(kind) else kind)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can be
        return False


def _words(kind: Any) -> str:
    plain = get_origin(kind) or kind
    return _WORDS[dict if is_typeddict(plain) else plain]
