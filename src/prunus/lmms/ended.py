"""A refusal ends a run of lmms-eval: it is no answer, and nobody may miss it.

lmms-eval's command takes every ``Exception`` for something to be printed: it exits with 0. Python's
``SystemExit`` is none, so the run ends with the message, with exit code 1, and without results.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prunus.errors import PrunusError, one_line


class Ended(SystemExit):
    """The end of a run; ``refusal`` is why."""

    def __init__(self, refusal: PrunusError) -> None:
        super().__init__(f"error: prunus: {one_line(refusal)}")
        self.refusal = refusal


@contextmanager
def ending() -> Iterator[None]:
    """Turn a refusal inside the block into the end of the run."""
    try:
        yield
    except PrunusError as error:
        raise Ended(error) from error
