"""The command as it was typed: results say what made them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextvars import ContextVar

_typed: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())


def remember(arguments: Sequence[str]) -> None:
    """Keep the arguments that this call of the command line was given."""
    _typed.set(tuple(arguments))


def command() -> str:
    """What was typed, quoted for a shell, without the place of the program."""
    return shlex.join(["prunus", *_typed.get()])
