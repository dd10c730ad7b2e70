"""Whether a JSON value has the form that a type says, and where it has not."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator, Mapping
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
    # Large files are right as a rule: that is found out first, without names of places.
    return None if _test(kind)(value) else next(_misfits(value, kind, place), None)


@lru_cache(maxsize=256)
def _test(kind: Any) -> Callable[[Any], bool]:
    """A function that says whether a value has the form ``kind``, as :func:`_misfits` has it."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: True
    if origin in (Union, types.UnionType):
        first, *rest = parts
        one, other = _test(first), _test(Union[tuple(rest)])  # noqa: UP007
        return lambda value: one(value) or other(value)
    if is_typeddict(kind):
        return _test_of_keys(kind)
    if origin is list:
        each = _test(parts[0])
        return lambda value: isinstance(value, list) and all(map(each, value))
    if origin is dict:
        each = _test(parts[1])
        return lambda value: isinstance(value, dict) and all(map(each, value.values()))
    if kind in (str, dict, list):
        return lambda value: isinstance(value, kind)
    if kind is float:  # most of them are: none of these is bool or beyond what floats can be
        return lambda value: (
            math.isfinite(value) if type(value) is float else _is_plainly(value, kind)
        )
    return lambda value: _is_plainly(value, origin or kind)


def _test_of_keys(kind: Any) -> Callable[[Any], bool]:
    needed: frozenset[str] = kind.__required_keys__
    tests: dict[str, Callable[[Any], bool]] | None = None

    def test(value: Any) -> bool:
        nonlocal tests
        if not isinstance(value, dict) or not needed <= value.keys():
            return False
        if tests is None:  # not before: a form may hold itself
            tests = {name: _test(own) for name, own in _hints(kind).items()}
        return all(own(value[name]) for name, own in tests.items() if name in value)

    return test


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
