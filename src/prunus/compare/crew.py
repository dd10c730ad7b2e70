"""Who asks: this process, or several beside it, each with a model of its own and one thread.

A task is a column and the questions about a few images. What comes back is told batch by batch, so
that whoever listens can store it; a process that dies is told with what it was asking, and another
takes its place.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from transformers.utils import logging

from prunus.compare.desk import Answered, Desk
from prunus.compare.setting import Setting
from prunus.errors import PrunusBudgetError, PrunusError, one_line

#: Processes that may die before nobody takes their place any more.
MOST_DEATHS = 3


@dataclass(frozen=True)
class Task:
    """Questions ``numbers``, all about ``images`` (part ``part`` of the set), for ``column`` of
    ``run``: indices into what both sides make of the setting."""

    run: int
    part: int
    column: int
    images: tuple[int, ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Faulty:
    """Questions that cannot be asked, with the reasons."""

    reasons: dict[int, str]


@dataclass(frozen=True)
class Refused:
    """The column cannot be asked: its methods refuse the model, or its budget cannot be reached for
    one of the ``numbers``, which stayed unanswered; the latter is for good (``lasting``)."""

    why: str
    numbers: tuple[int, ...]
    lasting: bool


@dataclass(frozen=True)
class Failed:
    """Something that should not happen: a bug of a method, or a process that died; ``details`` for
    those who look for it."""

    why: str
    details: str = ""


@dataclass(frozen=True)
class Done:
    """All answers to a task were told."""


Message = Answered | Faulty | Refused | Failed | Done


@dataclass
class Tasks:
    """What is still to be done, in its order."""

    waiting: list[Task] = field(default_factory=list)

    def take(self, like: Task | None, taken: Sequence[Task] = ()) -> Task | None:
        """The next task: for the images that ``like`` was about, which are prepared; else for some
        that nobody works on, of the same model if there are any."""
        if not self.waiting:
            return None
        busy = {(one.run, one.part) for one in taken}

        def far(one: Task) -> int:
            if like is not None and (one.run, one.part) == (like.run, like.part):
                return 0
            free = (one.run, one.part) not in busy
            return 1 + (not free) + 2 * (like is not None and one.run != like.run)

        found = min(self.waiting, key=far)  # of several, the first
        self.waiting.remove(found)
        return found

    def drop(self, task: Task, everywhere: bool) -> int:
        """Forget those of the same column behind ``task``, or ``everywhere``; how many questions
        they are."""
        gone = [
            one
            for one in self.waiting
            if (one.run, one.column) == (task.run, task.column)
            and (everywhere or one.part > task.part)
        ]
        self.waiting = [one for one in self.waiting if one not in gone]
        return sum(len(one.numbers) for one in gone)


def attend(desk: Desk, task: Task) -> Iterator[Message]:
    """Do one task; the last message is :class:`Done`, :class:`Refused` or :class:`Failed`."""
    column = desk.columns[task.column]
    left = set(task.numbers)
    try:
        faults = desk.part(task.images).faults
        if own := {number: faults[number] for number in task.numbers if number in faults}:
            left -= set(own)
            yield Faulty(own)
        try:
            for answered in desk.ask(column, task.images, task.numbers):
                left -= set(answered.given)
                yield answered
        except PrunusBudgetError:
            # Which of a batch it is decides what a smaller set is told: those before it have
            # answers.
            for number in sorted(left):
                for answered in desk.ask(column, task.images, (number,)):
                    left -= set(answered.given)
                    yield answered
    except PrunusError as error:
        lasting = isinstance(error, PrunusBudgetError)
        yield Refused(one_line(error), tuple(sorted(left)), lasting)
    except Exception as error:  # a method may raise anything, and others go on
        text = f"{type(error).__name__}: {one_line(error)}"
        yield Failed(text, traceback.format_exc())
    else:
        yield Done()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, as all who ask do: the number changes the last digits of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def alone(setting: Setting, tasks: Tasks) -> Iterator[tuple[Task, Message]]:
    """Do all ``tasks`` in this process, those too that are added before the last one's last message
    is taken on."""
    desk, at, last = None, -1, None
    with one_thread():
        while task := tasks.take(last):
            if desk is None or at != task.run:
                desk, at = Desk(setting, setting.runs[task.run]), task.run
            for message in attend(desk, task):
                yield task, message
            last = task


def begun(context: Any, target: Callable[..., None], *arguments: Any) -> Any:
    """A process that does ``target`` and never sees Ctrl-C, from its first moment on: that is for
    the one that listens, and would end those that still import in the middle of it."""
    process = context.Process(target=target, args=arguments, daemon=True)
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        process.start()
        return process
    resource_tracker.ensure_running()  # begun with the first process, it would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()  # a mask is inherited; what comes meanwhile is told afterwards
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


@dataclass
class _Worker:
    """A process, the pipe to it, what it is doing, and what it did before."""

    process: Any
    pipe: Connection
    task: Task | None = None
    last: Task | None = None


def together(setting: Setting, tasks: Tasks, count: int) -> Iterator[tuple[Task, Message]]:
    """Do all ``tasks`` in ``count`` processes, those too that are added before the last one's last
    message is taken on. They end with the block that goes through this.

    Raises:
        PrunusError: a process cannot begin, or too many died; names what they were asking.
    """
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    deaths = 0

    def begin() -> None:
        ours, theirs = context.Pipe()
        process = begun(context, _serve, theirs, setting)
        theirs.close()
        workers.append(_Worker(process, ours))

    def give(worker: _Worker) -> None:
        taken = [one.task for one in workers if one.task is not None]
        task = tasks.take(worker.last, taken)
        worker.task = task
        if task is not None:
            with suppress(OSError):  # it died: its pipe ends, which is seen below
                worker.pipe.send(task)

    try:
        for _ in range(count):
            begin()
        for worker in workers:
            give(worker)
        while busy := [one for one in workers if one.task is not None]:
            for pipe in wait([one.pipe for one in busy]):
                worker = next(one for one in workers if one.pipe is pipe)
                task = worker.task
                if task is None:
                    continue
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join(10)
                    deaths += 1
                    workers.remove(worker)
                    why = f"the process that asked it died ({_ending(worker.process.exitcode)})"
                    yield task, Failed(why)
                    if deaths > MOST_DEATHS:
                        raise PrunusError(f"{deaths} processes died: {why}") from None
                    begin()
                    give(workers[-1])
                    continue
                yield task, message
                if not isinstance(message, (Answered, Faulty)):
                    worker.task, worker.last = None, task
                # More may have come for those that had nothing to do.
                for one in workers:
                    if one.task is None:
                        give(one)
    finally:
        for worker in workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {-code}: {signal.Signals(-code).name}"
    return f"exit code {code}"


def _serve(pipe: Connection, setting: Setting) -> None:
    """A worker's life: tasks come, messages go; it ends with its pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that listens
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    desk, at = None, -1
    try:
        while True:
            task: Task = pipe.recv()
            if desk is None or at != task.run:
                desk = None  # before the next one is there
                desk, at = Desk(setting, setting.runs[task.run]), task.run
            for message in attend(desk, task):
                pipe.send(message)
    except (EOFError, ConnectionError):  # whoever listened is gone, read all or not
        return
