"""One model on one set: what is known of its columns, and what is still to be asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from prunus.compare.columns import DENSE, Column
from prunus.compare.crew import Failed, Faulty, Message, Refused, Task
from prunus.compare.desk import Answered, Desk
from prunus.compare.identity import (
    column_identity,
    digest,
    model_identity,
    question_digest,
    seen_digest,
)
from prunus.compare.setting import Setting
from prunus.compare.store import Given, Store
from prunus.errors import PrunusError, one_line
from prunus.tasks.sets import EvalSet


@dataclass
class Ledger:
    """A column with what is known of it: ``given`` and ``refused`` by the numbers of questions,
    ``names`` their digests; ``failed``: what went wrong that should not."""

    column: Column
    identity: dict[str, Any]
    names: dict[int, str]
    given: dict[int, Given] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    failed: str | None = None

    @property
    def why_not(self) -> str | None:
        """Why it has no row, None where it may have one. Of several reasons, that of the first
        question: it does not depend on who asked when."""
        if self.column.refused is not None:
            return self.column.refused
        if self.failed is not None:
            return f"failed: {self.failed}"
        return self.refused[min(self.refused)] if self.refused else None


class Course:
    """What is asked in one run, number ``number`` of the setting.

    Attributes:
        data: its questions; ``faults``: those that cannot be asked, with the reasons; ``lines``:
            what is wrong with lines that are no questions.
        ledgers: by column.
        model: facts of the model: "dtype", "device".

    Raises:
        PrunusError: the model or the set cannot be loaded, or they do not go together.
    """

    def __init__(self, setting: Setting, number: int, store: Store) -> None:
        self.number, self.spec = number, setting.runs[number]
        self._setting, self._store = setting, store
        desk = Desk(setting, self.spec)
        self.data: EvalSet = desk.data
        self.depth = desk.family.depth
        self.faults: dict[int, str] = {}
        self.lines = desk.lines.found
        self.model = model_identity(desk.model, desk.processor)
        images = self._images()
        first = next(iter(images), None)
        if first is not None and desk.part([first]).faults and not setting.skip:
            raise PrunusError(next(iter(desk.part([first]).faults.values())))
        if not self.numbers:
            raise PrunusError(self.nothing)
        self._parts = _parts(sorted({query.image for query in self.data.queries}), setting.part)
        beside = {
            image: digest([images.get(one) for one in part])
            for part in self._parts.values()
            for image in part
        }
        self.ledgers: list[Ledger] = []
        for column in desk.columns:
            identity = column_identity(
                self.model, self.data, desk.new_tokens, column.cell, column.budget
            )
            names = {
                n: question_digest(
                    self.data, n, images[query.image], column.cell, beside[query.image]
                )
                for n, query in enumerate(self.data.queries)
                if query.image in images
            }
            self.ledgers.append(self._known(Ledger(column, identity, names)))

    @property
    def id(self) -> str:
        """What the run is called: model and set."""
        return self.spec.id

    @property
    def numbers(self) -> list[int]:
        """The questions that can be asked."""
        return [n for n in range(len(self.data.queries)) if n not in self.faults]

    @property
    def nothing(self) -> str:
        """What is said where none of the questions can be asked."""
        count, why = len(self.faults), next(iter(self.faults.values()), "")
        which = "the only question" if count == 1 else f"none of the {count} questions"
        can = "cannot" if count == 1 else "can"
        return f"{which} of {self.spec.data} {can} be asked: {why}"

    @property
    def dense(self) -> Ledger:
        """The unmodified model's."""
        return next(one for one in self.ledgers if one.column.cell.name == DENSE)

    def _images(self) -> dict[int, str]:
        """Digests of the images that are asked about; those that cannot be opened are faults."""
        found: dict[int, str] = {}
        reasons: dict[int, str] = {}
        for number, query in enumerate(self.data.queries):
            if query.image not in found and query.image not in reasons:
                try:
                    found[query.image] = seen_digest(self.data.seen(query.image))
                except PrunusError as error:
                    reasons[query.image] = one_line(error)
            if query.image in reasons:
                self.fault({number: reasons[query.image]})
        return found

    def _known(self, ledger: Ledger) -> Ledger:
        """``ledger`` with what is stored of it."""
        if ledger.column.refused is None:
            known = self._store.known(ledger.identity)
            for number, name in ledger.names.items():
                if name in known.given:
                    ledger.given[number] = known.given[name]
                elif name in known.refused:
                    ledger.refused[number] = known.refused[name]
        return ledger

    def fault(self, reasons: Mapping[int, str]) -> None:
        """Questions that cannot be asked: the first ends everything, unless they are skipped.

        Raises:
            PrunusError: it does.
        """
        if reasons and not self._setting.skip:
            raise PrunusError(next(iter(reasons.values())))
        self.faults |= reasons

    def tasks(
        self, columns: Collection[int] | None = None, numbers: Collection[int] | None = None
    ) -> list[Task]:
        """What is not known, part by part, of some ``columns`` and ``numbers`` or of all. Of a
        column that is refused in some part, nothing behind that is asked."""
        found = []
        for part, images in self._parts.items():
            there = set(images)
            own = [
                n
                for n in self.numbers
                if self.data.queries[n].image in there and (numbers is None or n in numbers)
            ]
            for column, ledger in enumerate(self.ledgers):
                missing = [n for n in own if n not in ledger.given]
                stopped = ledger.refused and part >= self._part(min(ledger.refused))
                wanted = columns is None or column in columns
                if wanted and missing and not stopped and ledger.column.refused is None:
                    found.append(Task(self.number, part, column, tuple(images), tuple(missing)))
        return found

    def _part(self, number: int) -> int:
        image = self.data.queries[number].image
        return next(part for part, images in self._parts.items() if image in images)

    def take(self, task: Task, message: Message) -> int:
        """Note, and store, what came back; how many questions of the task are done with."""
        ledger = self.ledgers[task.column]
        if isinstance(message, Answered):
            ledger.given |= message.given
            named = {ledger.names[n]: one for n, one in message.given.items()}
            self._store.add(ledger.identity, named)
            return len(message.given)
        if isinstance(message, Faulty):
            self.fault(message.reasons)
            return len(message.reasons)
        if isinstance(message, Refused):
            first = min(message.numbers, default=task.numbers[0])
            ledger.refused[first] = message.why
            if message.lasting:
                self._store.add(ledger.identity, {}, {ledger.names[first]: message.why})
            return len(message.numbers)
        if isinstance(message, Failed):
            ledger.failed = ledger.failed or message.why
            return sum(n not in ledger.given for n in task.numbers)
        return 0


def _parts(images: list[int], size: int) -> dict[int, list[int]]:
    """Images by parts of the whole set, so that a limit moves no border."""
    found: dict[int, list[int]] = {}
    for image in images:
        found.setdefault(image // size, []).append(image)
    return found
