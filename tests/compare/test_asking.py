"""Questions that come later are asked by the processes that are there, or by this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prunus.compare import crew
from prunus.compare.asking import Asking
from prunus.compare.course import Course
from prunus.compare.store import Store
from tests.compare.small import SMALL, Listener

FEW = replace(SMALL, methods=("divprune", "uniform"), meanings=("nominal",), seeds=(0,), limit=5)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_comes_later_is_asked_by_those_that_are_there(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = []
    begun, desk = crew.begun, crew.Desk
    monkeypatch.setattr(crew, "begun", lambda *a: began.append("process") or begun(*a))
    monkeypatch.setattr(crew, "Desk", lambda *a: began.append("model") or desk(*a))
    course, listener = Course(FEW, 0, Store(tmp_path)), Listener()
    listener.stage("answers", 0)
    first = course.tasks([0, 1], {0, 1})
    assert [task.column for task in first] == [0, 1] and first[0].numbers == (0, 1)
    with Asking(FEW, workers, listener) as asking:
        asking.ask({0: course}, [])
        assert began == []
        asking.ask({0: course}, first)
        assert [len(one.given) for one in course.ledgers] == [2, 2, 0]
        asking.ask({0: course}, course.tasks(numbers={0, 1, 2}))
        assert [len(one.given) for one in course.ledgers] == [3, 3, 3]
        asking.ask({0: course}, course.tasks())
    assert began == ["process"] * 2 if workers == 2 else ["model"]
    assert [len(one.given) for one in course.ledgers] == [5, 5, 5] and course.tasks() == []
    assert listener.steps["answers"] == 15


def test_a_column_that_is_refused_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    setting = replace(FEW, methods=("fastv", "divprune"), keeps=(4,), meanings=("true",))
    course, listener = Course(setting, 0, Store(tmp_path)), Listener()
    listener.stage("answers", 0)
    with Asking(setting, 1, listener) as asking:
        asking.ask({0: course}, course.tasks([1, 2]))
        asking.ask({0: course}, course.tasks([2, 0], {0}))
    dense, fastv, divprune = course.ledgers
    assert fastv.column.cell.name == "fastv" and "cannot average" in str(fastv.why_not)
    assert (len(dense.given), len(fastv.given), len(divprune.given)) == (1, 0, 5)
    assert len(listener.lines) == 1
