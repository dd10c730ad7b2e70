"""The whole of it: choose on the tuning side, look at the held-out side once, say what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from prunus.compare.asking import Asking, Watch
from prunus.compare.comparing import made_by
from prunus.compare.course import Course, Ledger
from prunus.compare.desk import Desk
from prunus.compare.identity import digest
from prunus.compare.setting import RunSpec, Setting
from prunus.compare.store import Store
from prunus.compare.timing import seconds_of, time_columns
from prunus.errors import PrunusError, PrunusFileError
from prunus.tasks.faults import Faults
from prunus.tune.advice import answer_of, notes_of
from prunus.tune.bounds import least_questions, least_upper
from prunus.tune.candidates import check_methods, label
from prunus.tune.contract import FORMAT, Data, Held, Side, Tuned
from prunus.tune.looks import Look, Taken, check_record, overlap, record_of, take
from prunus.tune.questions import Asked, answered, read_questions
from prunus.tune.search import Search, Tried
from prunus.tune.split import Split, split
from prunus.tune.verdict import before_asking, held
from prunus.tune.wish import Wish

#: Rounds of timing of the one that is chosen: the fourth and the twelfth of so many ordered ratios
#: hold their median in 96 % of cases.
LAST_ROUNDS = 15
#: Images that are prepared together.
PART = 32


def tune(
    wish: Wish, folder: Path, place: Path, watch: Watch, *, workers: int, command: str = ""
) -> Tuned:
    """Find what ``wish`` is for. Answers are stored in the folder ``place``, and the two sides of
    the questions are written into ``folder``; both are to be claimed.

    Raises:
        PrunusError: the questions, the model or a method cannot be used. What was answered before
            stays, after Ctrl-C too.
    """
    began = time.perf_counter()
    check_methods(wish.methods)
    check_record(wish.data)
    faults = Faults("skip" if wish.skip else "stop")
    questions = read_questions(wish.data, faults)
    sides = split(questions, wish.share, wish.limit)
    _warn(wish, sides, watch)
    setting = _setting(wish, sides, folder, answered(questions))
    store = Store(place)
    with _spending(store, began), _placing(sides):
        course = Course(setting, 0, store)
        for line in store.told:
            watch.say(line)
        search = Search(course, answered(questions), wish.goal, len(sides.held_out), watch)
        chosen = _search(wish, setting, course, search, store, workers, watch)
        found: Held | None = None
        refused: str | None = None
        courses = [course]
        if chosen is None:
            _nothing_failed([one.ledger for one in search.tried])
        else:
            other = Course(setting, 1, store)
            courses.append(other)
            found, refused = _look(wish, sides, setting, other, chosen, store, workers, watch)
    answer = answer_of(wish, search, chosen, found, refused)
    made = made_by(setting, courses, workers, command, store.spent())
    return Tuned(
        format=FORMAT,
        made=made,
        model=wish.model,
        data=_data(wish, sides, faults, courses),
        goal=wish.goal.given,
        answer=answer,
        held_out=found,
        rounds=search.rounds,
        candidates=search.candidates(),
        notes=notes_of(wish, search, found, answered(questions), len(sides.held_out)),
    )


def _warn(wish: Wish, sides: Split, watch: Watch) -> None:
    """Say before anything is asked what so few questions cannot show."""
    if wish.goal.max_loss is None:
        return
    count, images = len(sides.held_out), len({one.pixels for one in sides.held_out})
    if (least := least_upper(count, images)) > wish.goal.max_loss:
        enough = least_questions(wish.goal.max_loss)
        watch.say("warning: " + before_asking(wish.goal, count, least, enough, wish.share))


def _setting(wish: Wish, sides: Split, folder: Path, given: bool) -> Setting:
    tuning, held_out = sides.write(folder / "questions")
    return Setting(
        (RunSpec(wish.model, str(tuning)), RunSpec(wish.model, str(held_out))),
        tuple(wish.methods),
        tuple(wish.keeps),
        ("true",),
        (0,),
        batch=wish.batch,
        part=PART,
        skip=wish.skip,
        pictures=0,
        rounds=0,
        new_tokens=None if given else wish.new_tokens,
        dtype=wish.dtype,
        device=wish.device,
    )


def _search(
    wish: Wish,
    setting: Setting,
    course: Course,
    search: Search,
    store: Store,
    workers: int,
    watch: Watch,
) -> Tried | None:
    """The candidate that is chosen. Times are taken between the rounds, with nothing beside."""
    with Asking(setting, workers, watch) as asking:
        search.begin(asking)
    if wish.rounds and search.alive:
        desk = Desk(setting, setting.runs[0])

        def clock(columns: Sequence[int]) -> dict[int, float]:
            watch.stage("times", len(columns))
            ledgers = [course.ledgers[column] for column in columns]
            times = time_columns(course, desk, ledgers, wish.rounds, store, watch.step)
            return {columns[place]: one["median"] for place, one in times.items()}

        search.time(clock)
        del desk
    with Asking(setting, workers, watch) as asking:
        return search.finish(asking)


def _look(
    wish: Wish,
    sides: Split,
    setting: Setting,
    course: Course,
    chosen: Tried,
    store: Store,
    workers: int,
    watch: Watch,
) -> tuple[Held | None, str | None]:
    """What the held-out questions say of the one that is chosen, or why they cannot be asked. It is
    noted that they were, before they are."""
    ledger = course.ledgers[chosen.column]
    taken = take(wish.data, look_at(course, ledger.identity, chosen.label, sides.digests))
    if taken.mended:
        record = record_of(wish.data)
        watch.say(f"{record}: its last line was cut off: a look that was never taken is left out")
    if taken.earlier:
        watch.say(f"the held-out questions were looked at before ({len(taken.earlier)} times)")
    wanted = [course.ledgers.index(course.dense), chosen.column]
    tasks = course.tasks(wanted)
    watch.say(f"held-out: {chosen.label}, {len(course.numbers)} questions")
    if total := sum(len(task.numbers) for task in tasks):
        watch.stage("answers of the held-out side", total)
        with Asking(setting, workers, watch) as asking:
            asking.ask({course.number: course}, tasks)
    _nothing_failed([course.dense, ledger])
    for one in (course.dense, ledger):
        if one.why_not is not None:
            return None, one.why_not
    seconds: Mapping[str, Sequence[float]] | None = None
    if wish.rounds:
        watch.stage("times of the chosen one", 1)
        desk = Desk(setting, setting.runs[1])
        seconds = seconds_of(course, desk, [ledger], LAST_ROUNDS, store, watch.step)[0]
    given = sides.held_out[0].answer is not None
    found = held(course, ledger, given, wish.goal, seconds, taken.level, wish.share)
    found["earlier"] = _earlier(taken, sides.digests)
    return found, None


def _nothing_failed(ledgers: Sequence[Ledger]) -> None:
    """That a process died, or a method broke, says nothing of what a method loses.

    Raises:
        PrunusError: one did.
    """
    for one in ledgers:
        if one.failed is not None:
            raise PrunusError(
                f"{label(one.column)}: {one.failed}; so nothing is said. What was answered is "
                "kept: the same command goes on there; --methods leaves a method out"
            )


def look_at(
    course: Course, identity: Mapping[str, object], name: str, questions: list[str]
) -> Look:
    """A look at ``questions``, now."""
    model = {key: course.model[key] for key in ("weights", "config")}
    return Look(
        what=digest(identity["cell"]),
        name=name,
        model=digest(model),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        questions=list(questions),
    )


def _earlier(taken: Taken, questions: Sequence[str]) -> list[dict[str, object]]:
    return [
        {"label": one.name, "date": one.date, "questions": overlap(one, questions)}
        for one in taken.earlier
    ]


@contextmanager
def _spending(store: Store, began: float) -> Iterator[None]:
    """Note the time that the block takes, also if it is stopped."""
    try:
        yield
    finally:
        with suppress(PrunusFileError):  # a full disk has its own, more important error
            store.spend(time.perf_counter() - began)


@contextmanager
def _placing(sides: Split) -> Iterator[None]:
    """Errors about lines of both sides are about those of the file that was given."""
    try:
        yield
    except PrunusError as error:
        if (told := sides.placed(str(error))) == str(error):
            raise
        raise PrunusError(told) from error


def _data(wish: Wish, sides: Split, faults: Faults, courses: Sequence[Course]) -> Data:
    left = [sides.placed(one) for course in courses for one in course.faults.values()]
    return Data(
        file=str(wish.data),
        answers="given" if sides.tuning[0].answer is not None else "dense",
        tuning=_side(sides.tuning),
        held_out=_side(sides.held_out),
        left_out=[*faults.found, *left],
    )


def _side(questions: Sequence[Asked]) -> Side:
    return Side(questions=len(questions), images=len({one.pixels for one in questions}))
