"""Which exceptions are a person's mistake (one line, exit code 2) and which are bugs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prunus.errors import PrunusError, PrunusFileError, one_line, shown


class BadInput(PrunusError):
    """Something that was given on the command line cannot work; the message says what to do."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn ValueError, TypeError and OSError inside the block into :class:`BadInput`.

    For steps of other libraries where every such error comes from what was given: rendering a
    template, encoding a prompt. ``what`` starts the message; prunus explains its own errors.
    """
    try:
        yield
    except PrunusError:
        raise
    except (ValueError, TypeError, OSError) as error:
        raise BadInput(f"{what}: {one_line(error)}") from error


@contextmanager
def option(name: str, value: object) -> Iterator[None]:
    """Let errors about files inside the block start with the option that they come from."""
    try:
        yield
    except PrunusFileError as error:
        raise BadInput(f"{name} {shown(str(value))}: {error}") from error


def broken_torchvision(error: BaseException) -> str | None:
    """What to do where torchvision is of another build than torch: transformers cannot import any
    model then, and says so in a long traceback. None for other errors."""
    link: BaseException | None = error
    while link is not None:
        if "torchvision::" in str(link):
            return (
                f"torchvision does not fit torch here ({one_line(link)}): take it away (pip "
                "uninstall torchvision), without which videos are not read, or install what "
                "`prunus constraints` names, from the index that torch came from"
            )
        link = link.__cause__ or link.__context__
    return None


def is_refusal(error: BaseException) -> bool:
    """Whether prunus raised ``error`` on purpose; anything else is a bug, with its traceback."""
    return isinstance(error, PrunusError)
