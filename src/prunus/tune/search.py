"""The search: rounds of questions on the tuning side, until one candidate is chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunus.compare.asking import Asking, Watch, lasting
from prunus.compare.contract import Interval
from prunus.compare.course import Course, Ledger
from prunus.compare.crew import Task
from prunus.errors import PrunusError, shown
from prunus.tune.bounds import Loss
from prunus.tune.candidates import label
from prunus.tune.contract import Candidate, Costing, Rounded
from prunus.tune.evidence import Evidence
from prunus.tune.goal import Costs, Goal
from prunus.tune.halving import Round, Standing, plan, ranked, surely_out, too_lossy

Clock = Callable[[Sequence[int]], dict[int, float]]
"""Times columns: the median share of the dense model's time, by column."""


@dataclass
class Tried:
    """A column with what became of it: ``out``: why it is not the answer."""

    column: int
    ledger: Ledger
    asked: int = 0
    rounds: int = 0
    loss: Loss | None = None
    costs: Costs | None = None
    time: float | None = None
    out: str | None = None

    @property
    def label(self) -> str:
        """What it is called."""
        return label(self.ledger.column)


class Search:
    """Asks the tuning questions.

    Args:
        course: of the tuning side.
        answered: whether answers are given.
        goal: what is wanted.
        held_out: how many questions will be asked of the one that is chosen.
        watch: is told how far it is.
    """

    def __init__(
        self, course: Course, answered: bool, goal: Goal, held_out: int, watch: Watch
    ) -> None:
        self._course, self._goal, self._held_out = course, goal, held_out
        self._evidence, self._watch = Evidence(course, answered), watch
        self._answered = answered
        self.tried = [
            Tried(column, ledger)
            for column, ledger in enumerate(course.ledgers)
            if ledger.column.cell.prunes
        ]
        self.alive = list(self.tried)
        self.rounds: list[Rounded] = []
        # Of what can be told before anything is asked, so that it is the same when it goes on.
        count = sum(one.ledger.column.refused is None for one in self.tried)
        self.plan: list[Round] = plan(max(1, count), max(1, len(course.numbers)))
        self.tests = max(1, count) * len(self.plan)
        self._drop_refused()

    @property
    def numbers(self) -> list[int]:
        """The questions, in the order in which they are asked."""
        return self._course.numbers

    def begin(self, asking: Asking) -> None:
        """Ask the dense model everything, and all candidates the first questions.

        Raises:
            PrunusError: the dense model cannot be asked, none of the questions can, or it has no
                more right answers than may be lost.
        """
        dense = self._course.ledgers.index(self._course.dense)
        began = time.monotonic()
        asked = self._ask(asking, [dense], self.numbers, "the unmodified model")
        if self._course.dense.why_not is not None:
            raise PrunusError(f"the unmodified model cannot be asked: {self._course.dense.why_not}")
        if not self.numbers:
            raise PrunusError("none of the tuning questions can be asked")
        self._check_right()
        if asked and self.alive:
            each = (time.monotonic() - began) / asked  # one process asks all of one column
            self._watch.say(self._ahead(each / asking.workers))
        self._round(asking, 0)

    def time(self, clock: Clock) -> None:
        """Time those of which more than one round may be asked."""
        lossy = too_lossy(self._standings(), self._goal, self.tests)
        wanted = [one for one in self.alive if one.label not in lossy]
        times = clock([one.column for one in wanted])
        for one in wanted:
            one.time = times[one.column]
            self._judge(one)

    def finish(self, asking: Asking) -> Tried | None:
        """All further rounds.

        Returns:
            The one that is chosen, None where there is none.
        """
        for number, _ in enumerate(self.plan):
            if number > 0:
                self._round(asking, number)
            self._halve(number)
            if not self.alive:
                return None
        return self._chosen()

    def candidates(self) -> list[Candidate]:
        """All that were tried, for the report."""
        return [self._told(one) for one in self.tried]

    def _check_right(self) -> None:
        """Raise PrunusError where the dense model has no more right answers than may be lost: then
        whatever is taken from it is within the bound."""
        dense = self._course.dense
        right = self._evidence.right(dense, self.numbers)
        if not self._answered or right.mean() > (self._goal.max_loss or 0.0):
            return
        number = self.numbers[int(right.argmin())]
        raise PrunusError(
            f"the unmodified model is right in {100 * right.mean():.1f} % of {len(right)} tuning "
            "questions, and more than that cannot be lost, whatever is taken from it; it says "
            f"{shown(dense.given[number].text)} where the answer is "
            f"{shown(self._course.data.queries[number].answer)}: write answers as it gives them, "
            "or leave all of them out (then agreement with its own is what counts)"
        )

    def _ahead(self, each: float) -> str:
        """How much there is to do, if a candidate's answer takes as long as one of the dense
        model."""
        alive, before, answers = len(self.alive), 0, 0
        for one in self.plan:
            answers += min(alive, one.candidates) * (one.questions - before)
            before = one.questions
        many = "1 candidate" if alive == 1 else f"{alive} candidates"
        return (
            f"{many}, {answers:,} answers at most: {lasting(answers * each)} at the "
            "dense model's pace; fewer --methods, --keep or questions (--limit) take less"
        )

    def _ask(self, asking: Asking, columns: Sequence[int], numbers: list[int], who: str) -> int:
        """Ask what is not known, and say how many answers that was."""
        course = self._course
        tasks: list[Task] = course.tasks(columns, set(numbers))
        known = sum(n in course.ledgers[column].given for column in columns for n in numbers)
        total = sum(len(task.numbers) for task in tasks)
        if total:
            self._watch.stage(f"answers of {who}", total, known)
            asking.ask({course.number: course}, tasks)
        return total

    def _round(self, asking: Asking, number: int) -> None:
        count = self.plan[number].questions
        who = f"round {number + 1} of {len(self.plan)}"
        many = f"{len(self.alive)} candidates" if len(self.alive) > 1 else "1 candidate"
        self._watch.say(f"{who}: {many}, {count} questions")
        columns = [one.column for one in self.alive]
        self._ask(asking, columns, self.numbers[:count], who)
        self._drop_refused()
        for one in self.alive:
            one.asked, one.rounds = count, number + 1
            self._judge(one)

    def _drop_refused(self) -> None:
        for one in self.alive:
            one.out = one.ledger.why_not
        self.alive = [one for one in self.alive if one.out is None]

    def _judge(self, one: Tried) -> None:
        numbers = self.numbers[: one.asked]
        one.loss = self._evidence.loss(one.ledger, numbers)
        one.costs = self._evidence.costs(one.ledger, numbers, one.time)

    def _standings(self) -> list[Standing]:
        return [
            Standing(one.label, one.loss, one.costs)
            for one in self.alive
            if one.loss is not None and one.costs is not None
        ]

    def _halve(self, number: int) -> None:
        standings, candidates = self._standings(), len(self.alive)
        surely = surely_out(standings, self._goal, self.tests)
        left = [one for one in standings if one.name not in surely]
        order = [one.name for one in ranked(left, self._goal, self._held_out)]
        last = number + 1 == len(self.plan)
        going = order if last else order[: self.plan[number + 1].candidates]
        for one in self.alive:
            one.out = surely.get(one.label)
            if one.out is None and one.label not in going:
                one.out = f"others promised more after {one.asked} questions"
        by_name = {one.label: one for one in self.alive}
        self.alive = [by_name[name] for name in going]
        self.rounds.append(
            Rounded(
                questions=self.plan[number].questions,
                candidates=candidates,
                surely=len(surely),
                cut=candidates - len(surely) - len(going),
            )
        )

    def _chosen(self) -> Tried | None:
        """Of those that were asked everything, the most promising one that is within the bound."""
        chosen: Tried | None = None
        for one in self.alive:
            bound = self._goal.max_loss
            if bound is not None and one.loss is not None and one.loss.value > bound:
                one.out = f"loses {100 * one.loss.value:.1f} points"
            elif chosen is None:
                chosen = one
            else:
                one.out = f"{chosen.label} promises more"
        return chosen

    def _told(self, one: Tried) -> Candidate:
        keep = one.ledger.column.cell.keep
        loss = None
        if one.loss is not None:
            low, high = one.loss.interval(self.tests)
            loss = Interval(value=one.loss.value, low=low, high=high)
        return Candidate(
            label=one.label,
            method=one.ledger.column.cell.name,
            keep=None if keep is None else float(keep),
            questions=one.asked,
            rounds=one.rounds,
            loss=loss,
            costs=None if one.costs is None else costing(one.costs),
            out=one.out,
        )


def costing(costs: Costs) -> Costing:
    """As plain values."""
    return Costing(flops=costs.flops, kv=costs.kv, most_kv=costs.most_kv, time=costs.time)
