"""What prunus refuses: one family of exceptions, so that refusals are told from bugs by class."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

_LONGEST = 80  # signs of a value in a message


class PrunusError(ValueError):
    """Something that was asked for cannot be done; the message says what to do instead.

    Everything that prunus raises on purpose is one of these. The subclasses are also what Python
    programs expect for their kind of mistake.
    """


class PrunusTypeError(PrunusError, TypeError):
    """An argument of a wrong type."""


class PrunusAttributeError(PrunusError, AttributeError):
    """Something that this object, other than its like, has not."""


class PrunusStateError(PrunusError, RuntimeError):
    """Something that cannot be done now: a model that is pruned already, a cache without its run,
    a report of nothing."""


class PrunusBudgetError(PrunusError):
    """A number of visual tokens that cannot be reached; the message names the least."""


class PrunusFileError(PrunusError, OSError):
    """A file that cannot be read or written."""


def shown(value: Any) -> str:
    """``value`` on one short line, for a message; Python refuses to write very long integers."""
    if isinstance(value, int) and value.bit_length() > 4 * _LONGEST:
        return f"a number of {value.bit_length()} bits"
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # a list of such integers
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def one_line(error: BaseException) -> str:
    """The message of ``error`` on a single line; its type where it has no message."""
    text = str(error).encode("utf-8", "backslashreplace").decode()  # names may be half a sign
    return " ".join(text.split()) or type(error).__name__


def brief(error: BaseException) -> str:
    """What an error of another library says, on one line and not too long; its type where it says
    nothing."""
    text = one_line(error)
    return text if len(text) <= 4 * _LONGEST else f"{text[: 4 * _LONGEST]}..."


def unknown(kind: str, name: str, known: Sequence[str]) -> PrunusError:
    """The error for a ``name`` that is not among the ``known`` ones, with the closest of them."""
    close = get_close_matches(name, known, n=1) or get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return PrunusError(f"unknown {kind} {shown(name)}: {hint}there are {', '.join(known)}")


class PromptEndWarning(UserWarning):
    """Nobody said where a prompt ends, and a method looks at its last token."""
