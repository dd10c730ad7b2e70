"""Questions that cannot be asked: the first of them ends everything, or they are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

from prunus.errors import PrunusError, shown

OnError = Literal["stop", "skip"]


@dataclass
class Faults:
    """What is wrong with single questions (broken images, lines that are no JSON, placeholders).

    Attributes:
        on_error: "stop" raises the first; "skip" leaves such questions out.
        found: why each question was left out, with its place in the file.

    Raises:
        PrunusError: another ``on_error``.
    """

    on_error: OnError = "stop"
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise PrunusError(f"on_error={shown(self.on_error)}: choose stop or skip")

    def take(self, error: PrunusError, questions: int = 1) -> None:
        """Raise ``error``, or note that so many ``questions`` are left out because of it."""
        if self.on_error == "stop":
            raise error
        self.found += [str(error)] * questions


@contextmanager
def at(place: str) -> Iterator[None]:
    """Let messages of PrunusErrors start with ``place``, where that is known."""
    try:
        yield
    except PrunusError as error:
        if not place or str(error).startswith(place):
            raise
        raise PrunusError(f"{place}: {error}") from error


def told(found: Sequence[str], most: int = 5) -> list[str]:
    """The first ``most`` reasons, each once, and how many questions there are beyond them."""
    reasons = list(dict.fromkeys(found))
    lines = [
        f"{reason} ({found.count(reason)} questions)" if found.count(reason) > 1 else reason
        for reason in reasons[:most]
    ]
    if beyond := sum(found.count(reason) for reason in reasons[most:]):
        lines.append(f"and {beyond} more")
    return lines
