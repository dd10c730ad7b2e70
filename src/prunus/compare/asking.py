"""Asks what is not known, here or in processes beside it, and notes every answer as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol

from prunus.compare.course import Course
from prunus.compare.crew import Faulty, Message, Task, Tasks, alone, together
from prunus.compare.desk import Answered
from prunus.compare.setting import Setting


class Watch(Protocol):
    """Who is told how far it is."""

    def stage(self, name: str, total: int, known: int = 0) -> None:
        """Something else begins, with so many steps; so many were ``known`` before."""

    def step(self, count: int) -> None:
        """So many of them are done."""

    def say(self, line: str) -> None:
        """Something to be seen now."""


def lasting(seconds: float) -> str:
    """A time in words: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Asking:
    """A context manager: processes begin with the first question, and are there for further ones
    until the block ends.

    Args:
        setting: of the comparison.
        workers: processes at most; with 1 it is this one.
        watch: is told of every answer.

    Attributes:
        workers: as given.
    """

    def __init__(self, setting: Setting, workers: int, watch: Watch) -> None:
        self._setting, self.workers, self._watch = setting, workers, watch
        self._tasks = Tasks([])
        self._messages: Iterator[tuple[Task, Message]] | None = None
        self._told: set[tuple[int, int]] = set()

    def __enter__(self) -> Asking:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._messages is not None:
            self._messages.close()  # type: ignore[attr-defined]

    def ask(self, courses: Mapping[int, Course], tasks: Sequence[Task]) -> None:
        """Do all ``tasks``; ``courses`` by the numbers of their runs.

        Raises:
            PrunusError: a question cannot be asked, or too many processes died.
        """
        self._tasks.waiting += tasks
        left = len(tasks)
        if not left:
            return
        if self._messages is None:
            count = min(self.workers, left)
            self._messages = (
                alone(self._setting, self._tasks)
                if count == 1
                else together(self._setting, self._tasks, count)
            )
        while left:
            task, message = next(self._messages)
            waiting = len(self._tasks.waiting)
            self._take(courses[task.run], task, message)
            left -= waiting - len(self._tasks.waiting)  # those that were dropped
            left -= not isinstance(message, (Answered, Faulty))

    def _take(self, course: Course, task: Task, message: Message) -> None:
        self._watch.step(course.take(task, message))
        ledger = course.ledgers[task.column]
        if ledger.why_not is not None and ledger.column.refused is None:
            self._watch.step(self._tasks.drop(task, everywhere=ledger.failed is not None))
            if (task.run, task.column) not in self._told:
                self._told.add((task.run, task.column))
                self._watch.say(f"{course.id}: {ledger.column.words}: {ledger.why_not}")
