"""What a calibrator is: a function that a method names, with options of its own.

A method class says ``calibrator = "package.module:function"``. The function takes a :class:`Setup`
and, by keyword, its options, each annotated with an :class:`Opt`; it returns an :class:`Outcome`.
``prunus calibrate METHOD`` makes a command of that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from prunus.analyse.context import Context
from prunus.errors import PrunusError, PrunusFileError, unknown
from prunus.io.files import make_folder
from prunus.method import methods
from prunus.method.registry import spelled
from prunus.tasks.sets import EvalSet


@dataclass(frozen=True)
class Opt:
    """An option: its ``help``, the ``least`` whole number that it takes, and what stands for its
    value in the help text."""

    help: str
    least: int | None = None
    metavar: str | None = None


@dataclass(frozen=True)
class Setup:
    """What every calibrator is given.

    Attributes:
        model: its name.
        load: gives model and processor; takes its time.
        asked: at most so many of the questions that a person brought; None where none were.
        batch: prompts at a time.
        busy: shows a text while a block runs; progress: shows a bar of a text and a number of
            steps, and gives the function that counts one.
    """

    model: str
    load: Callable[[], tuple[Any, Any]]
    asked: Callable[[int], EvalSet | None]
    batch: int
    busy: Callable[[str], AbstractContextManager[None]]
    progress: Callable[[str, int], AbstractContextManager[Callable[[], None]]]

    def context(self, questions: EvalSet) -> Context:
        """Model and ``questions``, images not yet encoded."""
        model, processor = self.load()
        return Context(model, processor, questions, batch=self.batch)

    def counted(self, text: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Like ``progress``, with a function that is told how many steps were done."""
        return _Counted(self.progress(text, total))


class _Counted(AbstractContextManager[Callable[[int], None]]):
    def __init__(self, single: AbstractContextManager[Callable[[], None]]) -> None:
        self._single = single

    def __enter__(self) -> Callable[[int], None]:
        step = self._single.__enter__()

        def steps(count: int) -> None:
            for _ in range(count):
                step()

        return steps

    def __exit__(self, *error: Any) -> None:
        self._single.__exit__(*error)


@dataclass(frozen=True)
class Outcome:
    """What was found: as plain JSON values, and in lines for people."""

    facts: dict[str, Any]
    lines: list[str]


def make_room(output: Path) -> None:
    """Refuse a place where no file can be written now, not after minutes of work."""
    if output.is_dir():
        raise PrunusError(f"--output {str(output)!r} is a folder: give a file name in .json")
    try:
        make_folder(output.parent)
    except PrunusFileError as error:
        raise PrunusFileError(f"--output {str(output)!r}: {error}") from error


def calibrated() -> list[str]:
    """Names of the methods that can be calibrated."""
    return [name for name, kind in methods().items() if kind.calibrator]


def calibrator_of(name: str) -> Callable[..., Outcome]:
    """The calibrator of the method called ``name``.

    Raises:
        PrunusError: no such method, or one with nothing to calibrate.
    """
    known = methods()
    name = spelled(name, known)
    if name not in known:
        raise unknown("method", name, calibrated())
    place: str = known[name].calibrator
    if not place:
        raise PrunusError(f"{name} has nothing to calibrate: there are {', '.join(calibrated())}")
    module, _, function = place.partition(":")
    found: Callable[..., Outcome] = getattr(import_module(module), function)
    return found
