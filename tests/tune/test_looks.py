"""Held-out questions are looked at once: a look is noted, told, and paid for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunus.errors import PrunusFileError
from prunus.tune.looks import Look, check_record, looks_at, overlap, record_of, take


def look(what: str, questions: str, model: str = "m") -> Look:
    return Look(what, f"method {what}", model, "2026-01-01", list(questions))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "mine.jsonl"


def test_the_first_look_is_the_first(data: Path) -> None:
    assert looks_at(data) == []
    taken = take(data, look("a", "xyz"))
    assert taken.earlier == [] and taken.level == 0.95
    assert looks_at(data) == [look("a", "xyz")]
    assert record_of(data).name == "mine.jsonl.looks"


def test_the_same_look_is_no_further_one(data: Path) -> None:
    """Gone on with after Ctrl-C, or asked for again: in whatever order."""
    for questions in ("xyz", "zyx", "xyz"):
        assert take(data, look("a", questions)).earlier == []
    assert len(looks_at(data)) == 1


def test_a_later_look_is_told_and_holds_with_more(data: Path) -> None:
    take(data, look("a", "xyz"))
    second = take(data, look("b", "zw"))
    assert second.earlier == [look("a", "xyz")] and second.level == pytest.approx(0.975)
    third = take(data, look("c", "xw"))
    assert [one.what for one in third.earlier] == ["a", "b"]
    assert third.level == pytest.approx(0.9875)
    # errors of all of them, however many there are
    assert sum(1 - (1 - 0.05 / 2**n) for n in range(50)) == pytest.approx(0.1)
    # what was looked at first is still the first
    assert take(data, look("a", "xyz")) == take(data, look("a", "xyz"))
    assert take(data, look("a", "xyz")).level == 0.95 and len(looks_at(data)) == 3
    assert take(data, look("b", "zw")).level == pytest.approx(0.975)
    # the same candidate, asked more questions, is another look
    assert len(take(data, look("a", "xyzw")).earlier) == 3


def test_other_questions_and_other_models_are_no_earlier_looks(data: Path) -> None:
    take(data, look("a", "xyz"))
    assert take(data, look("b", "uvw")).earlier == []
    assert take(data, look("b", "xyz", model="other")).earlier == []
    assert overlap(look("a", "xyz"), ["z", "w"]) == 1


def test_a_broken_record_is_refused(data: Path) -> None:
    take(data, look("a", "xyz"))
    whole = {"what": "a", "name": "a", "model": "m", "date": "d", "questions": ["x"]}
    others = [{**whole, "questions": one} for one in (3, [3], "xyz", None)]
    others += [{**whole, "what": []}, {"what": "a"}]
    for broken in ("{", "[]", *map(json.dumps, others)):
        record_of(data).write_text(broken)
        with pytest.raises(PrunusFileError, match="looks"):
            take(data, look("b", "xyz"))


def test_where_nothing_can_be_noted_nothing_is_asked(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl.looks").mkdir()
    with pytest.raises(PrunusFileError, match="noted beside.*copy the questions"):
        check_record(tmp_path / "mine.jsonl")
    check_record(tmp_path / "yours.jsonl")
    assert not (tmp_path / "yours.jsonl.looks").exists()
