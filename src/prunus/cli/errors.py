"""Which exceptions are a person's mistake (one line, exit code 2) and which are bugs."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType

_PACKAGE = str(Path(__file__).resolve().parents[1])


class BadInput(ValueError):
    """Something that was given on the command line cannot work; the message says what to do."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn ValueError, TypeError and OSError inside the block into :class:`BadInput`.

    For steps where every such error comes from what was given: opening files, loading models,
    encoding a prompt. ``what`` starts the message, unless prunus itself has already explained.
    """
    try:
        yield
    except BadInput:
        raise
    except (ValueError, TypeError, OSError) as error:
        text = one_line(error)
        raise BadInput(text if is_refusal(error) else f"{what}: {text}") from error


def is_refusal(error: BaseException) -> bool:
    """Whether ``error`` was raised on purpose by a ``raise`` statement of prunus.

    The engine refuses bad arguments with ValueError and TypeError. The same types also come out
    of bugs, from inside torch or from the interpreter itself (a call of None, say); those must
    keep their traceback.
    """
    if not isinstance(error, (ValueError, TypeError, OSError)):
        return False
    trace: TracebackType | None = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    raised = dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    return raised and str(Path(code.co_filename).resolve()).startswith(_PACKAGE)


def one_line(error: BaseException) -> str:
    """The message of ``error`` on a single line; its type where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def unknown(kind: str, name: str, known: list[str]) -> BadInput:
    """The error for a ``name`` that is not among the ``known`` ones, with the closest of them."""
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return BadInput(f"unknown {kind} {name!r}: {hint}there are {', '.join(known)}")
