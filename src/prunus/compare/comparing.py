"""The whole of a comparison: ask what is not known, time it, and put the numbers together."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import torch

from prunus.compare.asking import Asking, Watch
from prunus.compare.columns import DENSE
from prunus.compare.contract import FORMAT, Comparison, Facts, Made, Picture, Run, Time
from prunus.compare.course import Course, Ledger
from prunus.compare.desk import Desk
from prunus.compare.facts import facts_of
from prunus.compare.notes import notes_of
from prunus.compare.pictures import take_pictures
from prunus.compare.published import published_tables
from prunus.compare.rows import by_row, make_run
from prunus.compare.setting import Setting
from prunus.compare.store import Store
from prunus.compare.thumbnails import thumbnails
from prunus.compare.timing import time_columns
from prunus.errors import PrunusError, PrunusFileError, one_line
from prunus.evaluate.output import versions


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compare(
    setting: Setting,
    place: Path,
    watch: Watch,
    *,
    workers: int,
    command: str = "",
    title: str = "prunus compare",
) -> Comparison:
    """Everything of ``setting``, with the answers that are stored in the folder ``place``, which is
    to be claimed.

    Raises:
        PrunusError: nothing that is wanted can be compared, or a question cannot be asked. What was
            answered before stays in the store, after Ctrl-C too.
    """
    began = time.perf_counter()
    store = Store(place)
    courses, left_out = _courses(setting, store, watch)
    for line in store.told:
        watch.say(line)
    answers = sum(len(one.given) for course in courses for one in course.ledgers)
    runs, pictures = [], []
    try:
        _ask(setting, courses, workers, watch)
        for course in courses:
            if not course.numbers and len(setting.runs) > 1:
                left_out.append(f"left out: {course.id}: {course.nothing}")
                watch.say(left_out[-1])
                continue
            run, own = _finish(setting, course, store, watch)
            runs.append(run)
            pictures += own
    finally:
        # Of a run that asked something, the time counts, even if it was stopped.
        if sum(len(one.given) for course in courses for one in course.ledgers) > answers:
            with suppress(PrunusFileError):  # a full disk has its own, more important error
                store.spend(time.perf_counter() - began)
    if not runs:
        raise PrunusError(f"nothing can be compared: {left_out[-1]}")
    facts: dict[str, Facts] = {}
    for course in courses:
        facts |= facts_of((one.column for one in course.ledgers), course.depth)
    return Comparison(
        format=FORMAT,
        title=title,
        made=made_by(setting, courses, workers, command, store.spent()),
        notes=[*notes_of(setting, courses, runs), *left_out],
        budgets=[float(one) for one in setting.keeps],
        methods=facts,
        runs=runs,
        pictures=pictures,
        published=published_tables(),
    )


def _courses(setting: Setting, store: Store, watch: Watch) -> tuple[list[Course], list[str]]:
    """The runs that can be had, and a line for each of those that cannot."""
    found, left_out = [], []
    watch.stage("reading", len(setting.runs))
    for number, spec in enumerate(setting.runs):
        try:
            found.append(Course(setting, number, store))
        except PrunusError as error:
            if len(setting.runs) == 1:
                raise
            left_out.append(f"left out: {spec.model} on {spec.data}: {one_line(error)}")
            watch.say(left_out[-1])
        watch.step(1)
    if not found:
        raise PrunusError(f"nothing can be compared: {left_out[0]}")
    return found, left_out


def _ask(setting: Setting, courses: Sequence[Course], workers: int, watch: Watch) -> None:
    """Ask what is not known."""
    tasks = [task for course in courses for task in course.tasks()]
    if not tasks:
        return
    known = sum(len(one.given) for course in courses for one in course.ledgers)
    watch.stage("answers", sum(len(task.numbers) for task in tasks), known)
    with Asking(setting, workers, watch) as asking:
        asking.ask({course.number: course for course in courses}, tasks)


def _finish(
    setting: Setting, course: Course, store: Store, watch: Watch
) -> tuple[Run, list[Picture]]:
    """Time and draw one run, now that all is asked, and make its rows."""
    rows = {
        key: ledgers[0]
        for key, ledgers in by_row(course.ledgers).items()
        if key != DENSE
        and ledgers[0].column.cell.prunes
        and all(one.why_not is None for one in ledgers)
    }
    alike = {id(one): one for one in rows.values()}
    times: dict[str, Time] = {}
    pictures: list[Picture] = []
    if course.dense.why_not is None and course.numbers and (setting.rounds or setting.pictures):
        desk = Desk(setting, setting.runs[course.number])
        if setting.rounds and alike:
            watch.stage(f"times of {course.id}", len(alike))
            ledgers: list[Ledger] = list(alike.values())
            each = time_columns(course, desk, ledgers, setting.rounds, store, watch.step)
            by_ledger = {id(ledgers[place]): one for place, one in each.items()}
            times = {key: by_ledger[id(ledger)] for key, ledger in rows.items()}
        if setting.pictures:
            watch.stage(f"pictures of {course.id}", len(rows) * setting.pictures)
            pictures = take_pictures(course, desk, rows, setting.pictures, store, watch.step)
    run = make_run(course, setting.rival, times)
    if setting.pictures:
        run["thumbnails"] = thumbnails(run, course.data.seen)
    return run, pictures


def made_by(
    setting: Setting, courses: Sequence[Course], workers: int, command: str, seconds: float
) -> Made:
    """What makes the numbers of ``courses``, now."""
    device = setting.device
    if device.startswith("cuda"):
        device += f" ({torch.cuda.get_device_name(torch.device(device))})"
    else:
        device += f" ({platform.machine()}, {cores()} cores)"
    return Made(
        command=command,
        versions=versions(),
        device=device,
        threads=torch.get_num_threads(),
        dtype={course.spec.model: course.model["dtype"] for course in courses},
        seconds=seconds,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=setting.plain() | {"workers": workers},
    )
