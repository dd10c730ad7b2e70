"""From the strings of the command line to a method with typed parameters."""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from prunus.cli.errors import BadInput, unknown
from prunus.errors import shown

if TYPE_CHECKING:
    from prunus.method import Method

#: What ``--method`` calls the unmodified model.
NONE = "none"

_WORDS = {"true": True, "yes": True, "false": False, "no": False}


def parse_keep(text: str) -> int | float:
    """``"64"`` counts tokens, ``"0.333"`` is a share.

    Raises:
        BadInput: no number, or one out of range.
    """
    from prunus.method.budget import check_keep

    try:
        keep: int | float = int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    except ValueError:
        raise BadInput(
            f"--keep {shown(text)} is not a number: give an int >= 1 (visual tokens per image) "
            "or a float in (0, 1] (share of them)"
        ) from None
    return check_keep(keep)


def build_methods(name: str, keep: str | None, params: Sequence[str]) -> tuple[Method, ...] | None:
    """The methods called ``name`` (``"clse"``; ``"evoprune+clse"``: one behind the other) with
    ``--keep`` and ``--param`` settings (of several: ``0.5,64``, ``clse.cutoff=0.2``).

    Returns:
        Instances in the order named, or None for ``"none"`` (the unmodified model).

    Raises:
        BadInput: unknown method or parameter, a value of the wrong type, ``keep`` for a method
            that finds its own count, not one ``keep`` for each of several methods.
    """
    names = [part.strip() for part in name.split("+")]
    if names == [NONE]:
        if keep is not None or params:
            raise BadInput(
                "--method none prunes nothing: leave out --keep and --param, or name a method"
            )
        return None
    if len(names) == 1:
        return (_build(names[0], keep, params),)
    if len(set(names)) < len(names) or NONE in names:
        raise BadInput(f"--method {shown(name)}: name different methods, as in evoprune+clse")
    keeps: list[str | None] = [None] * len(names)
    if keep is not None:
        keeps = list(keep.split(","))
        if len(keeps) != len(names):
            raise BadInput(
                f"--keep {shown(keep)} for {len(names)} methods: give one for each, as in "
                "--keep 0.5,64"
            )
    own: dict[str, list[str]] = {one: [] for one in names}
    for param in params:
        owner, dot, rest = param.partition(".")
        if not dot or owner not in own:
            raise BadInput(
                f"--param {shown(param)} beside several methods: say whose it is, as in "
                f"{names[0]}.NAME=VALUE"
            )
        own[owner].append(rest)
    return tuple(_build(one, k, own[one]) for one, k in zip(names, keeps, strict=True))


def _build(name: str, keep: str | None, params: Sequence[str]) -> Method:
    from prunus.method import methods

    known = methods()
    if name not in known:
        raise unknown("method", name, [*known, NONE])
    values = parse_params(known[name], params)
    if keep is not None:
        if "keep" in values:
            raise BadInput("keep is given twice: by --keep and by --param")
        if "keep" not in field_names(known[name]):
            raise BadInput(f"method {shown(name)} finds its own count: leave out --keep")
        values["keep"] = parse_keep(keep)
    return known[name](**values)


def field_names(method: type[Method]) -> list[str]:
    """Names of the parameters that ``method`` can be given."""
    return [field.name for field in dataclasses.fields(method) if field.init]  # type: ignore[arg-type]


def parse_params(method: type[Method], params: Sequence[str]) -> dict[str, Any]:
    """``["cutoff=0.2", ...]`` as keyword arguments, typed by the fields of ``method``.

    Raises:
        BadInput: no ``=``, an unknown name, a name given twice, or a value of the wrong type.
    """
    hints = get_type_hints(method)
    known = field_names(method)
    values: dict[str, Any] = {}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals:
            raise BadInput(f"--param {shown(param)} is not name=value")
        if name not in known:
            raise unknown(f"parameter of {method.name}", name, known)
        if name in values:
            raise BadInput(f"parameter {shown(name)} is given twice")
        values[name] = parse_keep(text) if name == "keep" else convert(name, text, hints[name])
    return values


def convert(name: str, text: str, hint: Any) -> Any:
    """``text`` as a value of type ``hint``: bool, int, float, str, None, Literal, tuples, unions.

    Raises:
        BadInput: nothing in ``hint`` fits ``text``.
    """
    for option in _options(hint):
        fits, value = _try(name, text, option)
        if fits:
            return value
    raise BadInput(f"parameter {name}={shown(text)} does not fit: expected {describe(hint)}")


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
