"""Held-out questions are looked at once: a look is noted, told, and paid for."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from prunus.errors import PrunusFileError, PrunusStateError
from prunus.io.claim import claim_file
from prunus.io.files import append_line
from prunus.tune import looks
from prunus.tune.looks import Look, check_record, looks_at, overlap, record_of, take
from tests.support.files import another_process


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
        record_of(data).write_text(f"{broken}\n")
        with pytest.raises(PrunusFileError, match="looks"):
            take(data, look("b", "xyz"))
        assert record_of(data).read_text() == f"{broken}\n"


def test_of_looks_at_once_one_is_the_first(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is noted slowly, so that all of them are there before the first one is."""

    def slowly(path: Path, line: str) -> None:
        time.sleep(0.05)
        append_line(path, line)

    monkeypatch.setattr(looks, "append_line", slowly)
    with ThreadPoolExecutor(4) as crew:
        taken = list(crew.map(lambda what: take(data, look(what, "xyz")), "abcd"))
    assert sorted(len(one.earlier) for one in taken) == [0, 1, 2, 3]
    assert len({one.level for one in taken}) == 4 and len(looks_at(data)) == 4
    assert [one.name for one in data.parent.iterdir()] == [record_of(data).name]  # no lock


def test_while_another_process_notes_its_look_nobody_does(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "claim_file", partial(claim_file, wait=0.0))
    with (
        another_process(record_of(data), "claim_file") as other,
        pytest.raises(PrunusStateError, match=f"mine.jsonl.looks.*process {other.pid}"),
    ):
        take(data, look("a", "xyz"))
    assert not record_of(data).exists()
    assert take(data, look("a", "xyz")).earlier == []  # what was killed holds nothing


def test_a_record_without_its_last_end_of_line_counts_whole(data: Path) -> None:
    take(data, look("a", "xyz"))
    record_of(data).write_bytes(record_of(data).read_bytes().rstrip(b"\n"))
    second = take(data, look("b", "xyz"))
    assert second.earlier == [look("a", "xyz")] and not second.mended
    assert looks_at(data) == [look("a", "xyz"), look("b", "xyz")]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_look_that_was_cut_off_while_it_was_noted_was_not_taken(data: Path, share: float) -> None:
    take(data, look("a", "xyz"))
    whole = record_of(data).read_bytes()
    record_of(data).write_bytes(whole + whole[: int(share * len(whole))])
    second = take(data, look("b", "xyz"))
    assert second.earlier == [look("a", "xyz")] and second.mended
    assert looks_at(data) == [look("a", "xyz"), look("b", "xyz")]
    assert not take(data, look("c", "xyz")).mended


def test_where_nothing_can_be_noted_nothing_is_asked(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl.looks").mkdir()
    with pytest.raises(PrunusFileError, match="noted beside.*copy the questions"):
        check_record(tmp_path / "mine.jsonl")
    check_record(tmp_path / "yours.jsonl")
    assert not (tmp_path / "yours.jsonl.looks").exists()
