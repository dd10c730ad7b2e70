"""Parameters of a method from text: what a command line has."""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from prunus.errors import PrunusError, PrunusTypeError, shown, unknown
from prunus.method import Method
from prunus.method.budget import check_keep

_WORDS = {"true": True, "yes": True, "false": False, "no": False}


def parse_keep(text: str) -> int | float:
    """``"64"`` counts tokens, ``"0.333"`` and ``"33.3%"`` are shares.

    Raises:
        PrunusError: no number, or one out of range.
    """
    if text.rstrip().endswith("%"):
        try:
            return check_keep(text)
        except PrunusTypeError:  # something else than a number before the sign
            raise _no_number(text) from None
    try:
        keep: int | float = int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    except ValueError:
        raise _no_number(text) from None
    return check_keep(keep)


def _no_number(text: str) -> PrunusError:
    return PrunusError(
        f"--keep {shown(text)} is not a number: give an int >= 1 (visual tokens per image), or a "
        "share of them: a float in (0, 1], or 25%"
    )


def field_names(method: type[Method]) -> list[str]:
    """Names of the parameters that ``method`` can be given."""
    return [field.name for field in dataclasses.fields(method) if field.init]  # type: ignore[arg-type]


def parse_params(method: type[Method], params: Sequence[str]) -> dict[str, Any]:
    """``["cutoff=0.2", ...]`` as keyword arguments, typed by the fields of ``method``.

    Raises:
        PrunusError: no ``=``, an unknown name, a name given twice, or a value of the wrong type.
    """
    hints = get_type_hints(method)
    known = field_names(method)
    values: dict[str, Any] = {}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals:
            raise PrunusError(f"--param {shown(param)} is not name=value")
        if name not in known:
            raise unknown(f"parameter of {method.name}", name, known)
        if name in values:
            raise PrunusError(f"parameter {shown(name)} is given twice")
        values[name] = parse_keep(text) if name == "keep" else convert(name, text, hints[name])
    return values


def convert(name: str, text: str, hint: Any) -> Any:
    """``text`` as a value of type ``hint``: bool, int, float, str, None, Literal, tuples, unions.

    Raises:
        PrunusError: nothing in ``hint`` fits ``text``.
    """
    for option in _options(hint):
        fits, value = _try(name, text, option)
        if fits:
            return value
    raise PrunusError(f"parameter {name}={shown(text)} does not fit: expected {describe(hint)}")


def describe(hint: Any) -> str:
    """A type in words that a person can type: ``int``, ``paper | hybrid``, ``int,int,...``."""
    words = []
    for option in _options(hint):
        if get_origin(option) is Literal:
            words += [str(choice) for choice in get_args(option)]
        elif get_origin(option) is tuple:
            inner = describe(get_args(option)[0])
            words.append(f"{inner},{inner},...")
        elif option is type(None):
            words.append("none")
        elif option is Any:
            words.append("JSON")
        elif option is bool:
            words.append("true | false")
        else:
            words.append(getattr(option, "__name__", str(option)))
    return " | ".join(words)


def _options(hint: Any) -> list[Any]:
    """Members of a union, the most particular first: None and bool before numbers before text."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    order = [type(None), bool, int, float]
    return sorted(parts, key=lambda p: order.index(p) if p in order else 4 + (p is str))


def _try(name: str, text: str, option: Any) -> tuple[bool, Any]:
    if option is type(None):
        return text.lower() == "none", None
    if option is bool:
        return text.lower() in _WORDS, _WORDS.get(text.lower())
    if option in (int, float):
        try:
            return True, option(text)
        except ValueError:
            return False, None
    if get_origin(option) is Literal:
        match = {str(choice): choice for choice in get_args(option)}
        return text in match, match.get(text)
    if get_origin(option) is tuple:
        inner = get_args(option)[0]
        return True, tuple(convert(name, part, inner) for part in text.split(",") if part)
    if option is Any:  # lists of lists and the like: JSON, or else plain text
        try:
            return True, json.loads(text)
        except (ValueError, RecursionError):
            return True, text
    return option is str, text
