"""Measures a recipe, job by job: what is stored is not measured again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Protocol

from prunus.errors import PrunusError, one_line
from prunus.evaluate.output import versions
from prunus.reproduce.judge import Judge, Measured
from prunus.reproduce.recipe import Arm, Recipe
from prunus.reproduce.result import FORMAT, Left, Line, Reproduction, columns_of, line, relate
from prunus.reproduce.store import Store


class Watch(Protocol):
    """Told how far it is."""

    def begin(self, total: int) -> None:
        """So many jobs are to be done."""

    def step(self, words: str) -> None:
        """A job is begun."""

    def say(self, line: str) -> None:
        """Something to be seen now."""


def reproduce(
    recipe: Recipe,
    arms: Sequence[Arm],
    judges: Sequence[Judge],
    store: Store,
    watch: Watch,
    *,
    other_model: str | None = None,
    not_measured: Mapping[str, str] | None = None,
    made: Mapping[str, Any] | None = None,
) -> Reproduction:
    """All jobs of ``arms``, those of :meth:`Recipe.arms` or what stands for them, in their order.

    A method that is refused is told in its line, and the others go on. After Ctrl-C everything
    that was measured is in ``store``, and the same call goes on.

    Args:
        recipe: what is reproduced.
        arms: the dense model first.
        judges: who measure.
        store: where measurements are kept; to be claimed.
        watch: told how far it is.
        other_model: what stands for the paper's model.
        not_measured: columns of the table that are not measured, and why.
        made: what made the numbers, besides versions, time and date.
    """
    began = time.perf_counter()
    lines, left = [], []
    todo: list[tuple[Line, Arm, Judge, str]] = []
    originals = recipe.arms()
    for original, arm in zip(originals, arms, strict=True):
        if arm.needs:
            left.append(Left(row=arm.row, budget=arm.budget, why=arm.needs))
            continue
        one = line(recipe, original)
        one["method"], one["keep"] = arm.method, arm.keep
        lines.append(one)
        todo += [(one, arm, judge, job) for judge in judges for job in judge.jobs(arm)]
    watch.begin(len(todo))
    known = 0
    for one, arm, judge, job in todo:
        watch.step(f"{arm.words}: {job}")
        try:
            found, stored = _measured(judge, arm, job, store)
            known += stored
        except PrunusError as error:
            one["why_not"][job] = one_line(error)
            watch.say(f"{arm.words}: {job}: refused: {one['why_not'][job]}")
            continue
        one["measured"] |= found.values
        one["facts"][job] = found.facts
    for told in store.told:
        watch.say(told)
    if known:
        watch.say(
            f"{known} of {len(todo)} measurements were there already, in {store.place}: they come "
            "from an earlier run"
        )
    relate(lines, other_model is not None)
    left += [Left(row=a.row, budget=a.budget, why=a.why) for a in recipe.absent()]
    return Reproduction(
        format=FORMAT,
        recipe=recipe.name,
        title=recipe.table["title"],
        source=recipe.table["source"],
        paper_model=recipe.model.name,
        other_model=other_model,
        protocol=recipe.protocol,
        made={
            **(made or {}),
            "versions": versions(),
            "seconds": round(time.perf_counter() - began, 1),
            "measured before": f"{known} of {len(todo)}",
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
        columns=columns_of(recipe, lines),
        lines=lines,
        left_out=left,
        not_measured=dict(not_measured or {}),
        notes=[*recipe.table["flags"], *recipe.notes],
    )


def _measured(judge: Judge, arm: Arm, job: str, store: Store) -> tuple[Measured, bool]:
    """What was measured, and whether that was in an earlier run."""
    identity = judge.identity(arm, job)
    stored = store.read(identity)
    if stored is not None:
        return Measured(stored["values"], stored["facts"]), True
    found = judge.measure(arm, job)
    store.write(identity, {"values": found.values, "facts": found.facts})
    return found, False
