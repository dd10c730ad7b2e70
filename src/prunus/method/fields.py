"""Values of parameters against the annotations of their dataclass, before anything uses them.

``int`` means a whole number (no 5.0, no True), ``float`` a finite one, ``bool`` True or False,
``tuple[X, ...]`` any list of X. Numbers of numpy count as Python's. Annotations that say more than
this are left to their class.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Collection, Mapping
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from prunus.errors import PrunusError, PrunusTypeError, shown
from prunus.method.budget import check_keep

#: Least and largest value of numbers by name.
Ranges = Mapping[str, tuple[float, float]]

#: Whole numbers go into int64 tensors, others into float32 ones.
_LARGEST_INT = 2**63 - 1
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_LONGEST = 100_000  # entries of a list
_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    Path: "a path",
    type(None): "None",
    dict: "an object",
    list: "a list",
}
_NAMES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    dict: "object",
    list: "list",
}


def check_fields(instance: Any, finite: bool = True) -> None:
    """Check the type of every field of a dataclass instance against its annotation, and the range
    of numbers; put plain Python values in the place of numpy's, and tuples in that of lists.

    Texts may still be none of their choices, and without ``finite`` numbers NaN or infinite: see
    :func:`check_rest`.

    Raises:
        PrunusTypeError: a value of a wrong type.
        PrunusError: a number out of range.
    """
    for name, hint in _hints(instance.__class__).items():
        value = getattr(instance, name)
        fitted = fit(name, value, hint, finite)
        if fitted is not value:
            object.__setattr__(instance, name, fitted)


def check_values(owner: Any, values: Mapping[str, Any], prefix: str = "") -> None:
    """Check what is to become fields of the dataclass ``owner``; errors as of
    :func:`check_fields`, with ``prefix`` in front of the names."""
    hints = _hints(owner)
    for name, value in values.items():
        fit(f"{prefix}{name}", value, hints[name])


def check_ranges(instance: Any, ranges: Ranges) -> None:
    """Raise PrunusError for a number below its least or above its largest value; None is none."""
    for name, (least, largest) in ranges.items():
        value = getattr(instance, name)
        if value is None or least <= value <= largest:
            continue
        if largest == math.inf:
            what = f"give at least {least}" if least else "it cannot be negative"
        else:
            what = f"give a number from {least} to {largest}"
        raise PrunusError(f"{name}={shown(value)}: {what}")


def check_rest(instance: Any) -> None:
    """Check for texts that are none of their choices and numbers that are not finite, after the
    class had its say, which may be clearer.

    Raises:
        PrunusError: so.
    """
    for name, hint in _hints(instance.__class__).items():
        value = getattr(instance, name)
        _choose(name, value, hint)
        if isinstance(value, float):
            _finite(name, value)


def fit(name: str, value: Any, hint: Any, finite: bool = True) -> Any:
    """``value`` as ``hint`` wants it; errors as of :func:`check_fields`."""
    options = _options(hint)
    if not all(_known(option) for option in options):
        return value
    if name == "keep" and int in options and not (value is None and type(None) in options):
        return check_keep(value)
    for option in options:
        if _is(value, option):
            return _as(name, value, option, finite)
    options = [option for option in options if not _in_memory(option)]
    raise PrunusTypeError(
        f"{name}={shown(value)} is no {_joined(map(_name, options))}: "
        f"give {_joined(map(_word, options))}"
    )


def _choose(name: str, value: Any, hint: Any) -> None:
    options = _options(hint)
    choices: list[Any] = []
    for option in options:
        if get_origin(option) is tuple and isinstance(value, tuple):
            for entry in value:
                _choose(name, entry, get_args(option)[0])
        if get_origin(option) is Literal:
            choices += get_args(option)
    if isinstance(value, str) and choices and value not in choices and str not in options:
        raise PrunusError(f"{name}={shown(value)}: choose {_joined(map(str, choices))}")


@cache
def _hints(owner: Any) -> Mapping[str, Any]:
    """Annotations of the fields that can be given; none where they cannot be resolved, as those of
    a class in a function may be."""
    try:
        hints = get_type_hints(owner)
    except NameError:
        return {}
    return {one.name: hints[one.name] for one in dataclasses.fields(owner) if one.init}


def _options(hint: Any) -> list[Any]:
    """Members of a union, the more particular first: 3 is an int where int | float is wanted."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    order = [type(None), bool, int, float]
    return sorted(parts, key=lambda part: order.index(part) if part in order else len(order))


def _known(option: Any) -> bool:
    if get_origin(option) is tuple:
        inner = get_args(option)
        return len(inner) == 2 and inner[1] is Ellipsis
    return option in _WORDS or _in_memory(option) or get_origin(option) in (Literal, dict, list)


def _in_memory(option: Any) -> bool:
    """Whether ``option`` is a named tuple: something that no text or file can give."""
    return isinstance(option, type) and issubclass(option, tuple) and hasattr(option, "_fields")


def _is(value: Any, option: Any) -> bool:
    """Whether ``value`` is of the type ``option``, whatever its range."""
    origin = get_origin(option)
    if origin is Literal:
        return any(type(choice) is type(value) for choice in get_args(option))
    if origin is tuple:
        return isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping))
    if option is bool:
        return isinstance(value, (bool, np.bool_))
    if isinstance(value, (bool, np.bool_)):
        return False
    if option is int:
        return isinstance(value, Integral)
    if option is float:
        return isinstance(value, Real)
    return isinstance(value, origin or option)


def _as(name: str, value: Any, option: Any, finite: bool) -> Any:
    """``value``, which is of type ``option``, as plain Python has it."""
    if option is bool:
        return bool(value)
    if option is int:
        whole = int(value)
        if abs(whole) > _LARGEST_INT:
            raise PrunusError(f"{name}={shown(whole)}: it must fit into 64 bits")
        return whole
    if option is float:
        return _finite(name, value) if finite else _number(value)
    if get_origin(option) is tuple:
        return _listed(name, value, get_args(option)[0], finite)
    return value


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _finite(name: str, value: Any) -> float:
    number = _number(value)
    if not abs(number) <= _LARGEST_FLOAT:  # also true of NaN
        raise PrunusError(
            f"{name}={shown(value)}: it must be a finite number, at most {_LARGEST_FLOAT:.3g}"
        )
    return number


def _listed(name: str, values: Any, inner: Any, finite: bool) -> tuple[Any, ...]:
    try:
        count = len(values)
        entries = values.tolist() if hasattr(values, "tolist") else values
        if count <= _LONGEST and isinstance(entries, Collection):
            return tuple(fit(name, entry, inner, finite) for entry in entries)
    except (OverflowError, TypeError) as error:  # range(10**30) has no len(), nor has a 0-d array
        if isinstance(error, PrunusError):
            raise
    raise PrunusError(f"{name}={shown(values)}: give a list of at most {_LONGEST} entries")


def _name(option: Any) -> str:
    if get_origin(option) is Literal:
        return "text"
    if get_origin(option) is tuple:
        return "list"
    return _NAMES.get(get_origin(option) or option, "None")


def _word(option: Any) -> str:
    if get_origin(option) is Literal:
        return _joined(map(repr, get_args(option)))
    if get_origin(option) is tuple:
        return f"a list of ({_joined(map(_word, _options(get_args(option)[0])))})"
    return _WORDS.get(get_origin(option) or option, "anything")


def _joined(words: Any) -> str:
    *ahead, last = words
    return f"{', '.join(ahead)} or {last}" if ahead else str(last)
