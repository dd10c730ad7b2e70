"""What prunus refuses: one family of exceptions, so that refusals are told from bugs by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any

_LONGEST = 80  # signs of a value in a message
#: Signs of a list of names in a message: longer ones are cut, or it is said who lists them.
_LIST = 240
_AS_LIKE = 0.06  # names whose likeness to a wrong one differs by less are both named


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


def unknown(
    kind: str,
    name: str,
    known: Sequence[str],
    about: Mapping[str, str] | None = None,
    listed: str = "",
) -> PrunusError:
    """The error for a ``name`` that is not among the ``known`` ones, with the closest of them;
    where others are as like it as that, with these, and what ``about`` says of each. All of them
    are named where they are few; of many the message says ``listed``: where they are."""
    close = get_close_matches(name, known, n=3) or get_close_matches(name.lower(), known, n=3)
    near = [_likeness(name.lower(), one) for one in close]
    close = [one for one, own in zip(close, near, strict=True) if own > near[0] - _AS_LIKE]
    told = [repr(one) for one in close]
    if len(close) > 1 and about is not None:
        told = [f"{one!r} ({about[one]})" if one in about else repr(one) for one in close]
    hint = f"did you mean {' or '.join(told)}? " if close else ""
    return PrunusError(f"unknown {kind} {shown(name)}: {hint}{_there_are(known, listed)}")


def _there_are(known: Sequence[str], listed: str) -> str:
    """All names, or, where they fill more than a few lines, who lists them."""
    text = f"there are {', '.join(known)}"
    if len(text) <= _LIST:
        return text
    if listed:
        return listed
    some = text[:_LIST].rpartition(", ")[0]
    return f"{some} and {len(known) - some.count(', ') - 1} more"


def _likeness(one: str, other: str) -> float:
    """From 0 to 1."""
    return SequenceMatcher(None, one, other).ratio()


class PromptEndWarning(UserWarning):
    """Nobody said where a prompt ends, and a method looks at its last token."""
