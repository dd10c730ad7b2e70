"""A whole search on a built-in model: chosen, looked at once, gone on with, left dense."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prunus
from prunus.compare.course import Course
from prunus.compare.statistics import mean_change
from prunus.errors import PrunusError
from prunus.evaluate.scoring import is_right
from prunus.tune.contract import DENSE, MISSED, NOT_SHOWN, PRUNE, Tuned
from prunus.tune.goal import Goal
from prunus.tune.looks import looks_at, record_of
from prunus.tune.picture import draw, front
from tests.tune.small import Listener, questions, run, wish

LOSSY = Goal(max_loss=0.6)
Made = tuple[Tuned, Path, Listener]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A search, its folder, and who watched it: to be left as they are."""
    folder = tmp_path_factory.mktemp("tune")
    listener = Listener()
    found = run(wish(questions(folder / "drawn"), LOSSY), folder, listener)
    return found, folder, listener


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """The folder of it, to go on in."""
    shutil.copytree(made[1], tmp_path / "copy")
    return tmp_path / "copy"


def data(folder: Path) -> Path:
    return folder / "drawn" / "tuning-scenes.jsonl"


def same(found: Tuned) -> Any:
    """What must not depend on how it was made."""
    rest: Any = copy.deepcopy(dict(found))
    del rest["made"], rest["data"]["file"]
    return rest


def test_one_candidate_is_chosen_and_looked_at(made: Made) -> None:
    found, folder, listener = made
    tuning, held_out = found["data"]["tuning"], found["data"]["held_out"]
    assert tuning["questions"] + held_out["questions"] == 14 and found["data"]["answers"] == "given"
    assert found["answer"]["what"] == PRUNE and found["held_out"] is not None
    assert found["held_out"]["label"] == found["answer"]["label"]
    assert found["held_out"]["questions"] == held_out["questions"]
    (look,) = looks_at(data(folder))
    assert look.name == found["answer"]["label"] and len(look.questions) == held_out["questions"]
    assert [one["label"] for one in found["candidates"] if one["out"] is None] == [look.name]
    # the dense model is asked everything, each candidate the tuning side, the chosen one the rest
    assert listener.answers == 14 + 4 * tuning["questions"] + held_out["questions"]
    assert found["rounds"][0]["candidates"] == 4


def test_the_loss_is_that_of_the_answers(made: Made) -> None:
    """As a literal reading of the store has them."""
    found, folder, _ = made
    held, answer = found["held_out"], found["answer"]
    assert held is not None and answer["python"] is not None
    model, processor = prunus.load("tiny-llava")
    lines = (folder / "questions" / "held-out.jsonl").read_text().splitlines()
    change, images, average = [], [], []
    for row in map(json.loads, lines):
        image = (folder / "questions" / row["image"]).resolve()
        from PIL import Image

        text = f"USER: <image>\n{row['question']} ASSISTANT:"
        inputs = processor(images=Image.open(image), text=text, return_tensors="pt")

        def told(inputs: Any = inputs) -> str:
            out = model.generate(**inputs, max_new_tokens=6, do_sample=False, pad_token_id=0)
            return str(processor.decode(out[0, inputs["input_ids"].shape[1] :], True))

        dense = is_right(told(), row["answer"])
        with eval(answer["python"], {"prunus": prunus, "model": model}) as pruned:
            change.append(float(is_right(told(), row["answer"])) - dense)
            average.append(pruned.report()["tokens"]["average"])
        images.append(image.name)
    _, numbers = np.unique(images, return_inverse=True)
    expected = mean_change(np.array(change), numbers)
    assert held["loss"]["value"] == pytest.approx(-expected.value)
    assert held["loss"]["high"] == pytest.approx(-expected.low)
    assert held["loss"]["low"] == pytest.approx(-expected.high)
    assert held["lost"] == change.count(-1.0) and held["won"] == change.count(1.0)
    assert held["tokens"] == pytest.approx(np.mean(average))


def test_the_same_again_asks_nothing_and_looks_no_more(made: Made, copied: Path) -> None:
    listener = Listener()
    again = run(wish(data(copied), LOSSY), copied, listener)
    assert listener.answers == 0 and same(again) == same(made[0])
    assert len(looks_at(data(copied))) == 1 and again["held_out"] is not None
    assert again["held_out"]["earlier"] == []


def test_stopped_in_the_middle_it_goes_on(made: Made, tmp_path: Path) -> None:
    """In a round, and in the look, which stays one look: it may have been seen."""
    path = questions(tmp_path / "drawn")
    whole, held_out = made[2].answers, made[0]["data"]["held_out"]["questions"]
    given = 0
    for stop in (20, whole - held_out):
        listener = Listener(stop - given)
        with pytest.raises(KeyboardInterrupt):
            run(wish(path, LOSSY), tmp_path, listener)
        given += listener.answers
        assert len(looks_at(path)) == (stop != 20)
    listener = Listener()
    found = run(wish(path, LOSSY), tmp_path, listener)
    assert given < whole and whole <= given + listener.answers <= whole + 16  # two batches
    assert same(found) == same(made[0]) and len(looks_at(path)) == 1


def test_a_second_look_says_that_there_was_one(made: Made, copied: Path) -> None:
    chosen = made[0]["answer"]["label"]
    other = "fastervlm" if chosen and chosen.startswith("divprune") else "divprune"
    listener = Listener()
    found = run(wish(data(copied), LOSSY, methods=(other,), keeps=(0.4,)), copied, listener)
    held = found["held_out"]
    assert held is not None and [one["label"] for one in held["earlier"]] == [chosen]
    assert held["earlier"][0]["questions"] == held["questions"]
    assert held["level"] == pytest.approx(0.975)
    assert any("looked at before" in line for line in listener.lines)
    assert any("looked at before" in note and "97.5 %" in note for note in found["notes"])
    first = run(wish(data(copied), LOSSY), copied)
    assert same(first) == same(made[0])


def test_it_can_answer_that_it_stays_dense(made: Made, copied: Path) -> None:
    """Four tokens lose too much; nothing is looked at then."""
    before = record_of(data(copied)).read_bytes()
    found = run(wish(data(copied), Goal(max_loss=0.01), keeps=(4,)), copied)
    answer = found["answer"]
    assert (answer["what"], answer["python"], answer["cli"]) == (DENSE, None, None)
    assert "none of 2 candidates is within at most 1 points lost" in answer["why"]
    assert found["held_out"] is None and record_of(data(copied)).read_bytes() == before
    assert all(one["out"] is not None for one in found["candidates"])
    draw(found, copied / "dense.png")
    assert (copied / "dense.png").stat().st_size > 1000


def test_too_few_questions_are_told_before_and_after(made: Made) -> None:
    found, _, listener = made
    assert any(line.startswith("warning: too few questions") for line in listener.lines) is (
        found["answer"]["verdict"] == NOT_SHOWN and not _could_be_shown(found)
    )
    assert found["answer"]["verdict"] == NOT_SHOWN
    (note,) = [one for one in found["notes"] if one.startswith("too few questions to show")]
    assert found["held_out"] is not None and f"{found['held_out']['needed']:,} in all" in note


def _could_be_shown(found: Tuned) -> bool:
    from prunus.tune.bounds import least_upper

    held_out = found["data"]["held_out"]
    return least_upper(held_out["questions"], held_out["images"]) <= found["goal"]["max_loss"]


def test_a_question_that_the_model_refuses_is_named_by_its_line(copied: Path) -> None:
    lines = data(copied).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    bad = {**rows[4], "question": "is <image> there ?"}
    path = data(copied).with_name("placed.jsonl")
    path.write_text("\n".join([*lines[:4], json.dumps(bad), *lines[5:]]))
    with pytest.raises(PrunusError, match=r"^placed\.jsonl, line 5: .*placeholder"):
        run(wish(path, LOSSY), copied)
    found = run(wish(path, LOSSY, skip=True), copied)
    assert [one.partition(": ")[0] for one in found["data"]["left_out"]] == ["placed.jsonl, line 5"]


def test_where_nothing_is_right_nothing_is_said(copied: Path) -> None:
    """Nothing could be lost, whatever was pruned; and nobody has looked at anything."""
    rows = [json.loads(line) for line in data(copied).read_text().splitlines()]
    for wrong, goal in ((1.0, Goal(min_speed_up=1.1)), (0.7, LOSSY)):
        count = round(wrong * len(rows))
        changed = [{**row, "answer": "zebra"} for row in rows[:count]] + rows[count:]
        path = data(copied).with_name("wrong.jsonl")
        path.write_text("".join(f"{json.dumps(row)}\n" for row in changed))
        with pytest.raises(PrunusError, match="is right in .* where the answer is 'zebra'"):
            run(wish(path, goal), copied)
        assert not record_of(path).exists()


def test_without_answers_agreement_counts(made: Made, copied: Path) -> None:
    path = copied / "drawn" / "unanswered.jsonl"
    rows = [json.loads(line) for line in data(copied).read_text().splitlines()]
    path.write_text("\n".join(json.dumps({**row, "answer": None} | {}) for row in rows))
    with pytest.raises(PrunusError, match="line 1: expected an object"):
        run(wish(path, LOSSY), copied)
    for row in rows:
        del row["answer"]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = run(wish(path, LOSSY, methods=("divprune",), new_tokens=6), copied)
    held = found["held_out"]
    assert held is not None and found["data"]["answers"] == "dense"
    assert held["dense"]["value"] == 1.0 and held["won"] == 0
    assert held["loss"]["value"] == pytest.approx(held["lost"] / held["questions"])
    assert held["pruned"]["value"] == pytest.approx(1 - held["loss"]["value"])
    assert any("No answers were given" in note for note in found["notes"])


def test_speed_and_memory_without_a_loss(made: Made, copied: Path) -> None:
    """What loses least of what is fast and small enough; in FLOPs, where nothing is timed."""
    goal = Goal(min_speed_up=1.2, max_kv_share=0.5)
    found = run(wish(data(copied), goal), copied)
    held = found["held_out"]
    assert held is not None and found["answer"]["verdict"] == "shown"
    assert {one["what"]: one["verdict"] for one in held["checks"]} == {
        "speed-up": "shown", "kv share": "shown",
    }  # fmt: skip
    losses = {one["label"]: one["loss"]["value"] for one in found["candidates"] if one["loss"]}
    assert losses[str(found["answer"]["label"])] == min(losses.values())
    none = run(wish(data(copied), Goal(min_speed_up=500.0)), copied)
    assert none["answer"]["what"] == DENSE and "times as fast" in none["answer"]["why"]


def test_times_are_taken_and_taken_anew(
    made: Made, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the candidates, by which one is chosen; and of that one, which is what is told."""
    from prunus.compare import timing

    def timed(desk: Any, one: Any, shown: Any, ledgers: Any, rounds: int) -> Any:
        own = 1.0 if rounds == 15 else 0.5
        return {"dense": [2.0] * rounds, **{str(n): [own] * rounds for n in range(len(ledgers))}}

    monkeypatch.setattr(timing, "_timed", timed)
    what = replace(wish(data(copied), LOSSY, methods=("divprune",), keeps=(4,)), rounds=2)
    found = run(what, copied)
    (candidate,) = found["candidates"]
    assert candidate["costs"] is not None and candidate["costs"]["time"] == 0.25
    assert front(found["candidates"]) == [candidate]
    held = found["held_out"]
    assert held is not None and held["time"] is not None
    assert held["time"] == {
        "dense": 2.0, "pruned": 1.0, "rounds": 15,
        "speed_up": {"value": 2.0, "low": 2.0, "high": 2.0},
    }  # fmt: skip
    monkeypatch.setattr(timing, "_timed", None)
    assert same(run(what, copied)) == same(found)  # known from before


def test_candidates_that_cannot_be_asked_are_told(made: Made, copied: Path) -> None:
    found = run(wish(data(copied), LOSSY, methods=("fastv",), keeps=(4,)), copied)
    (candidate,) = found["candidates"]
    assert candidate["loss"] is None and "cannot average" in str(candidate["out"])
    assert found["answer"]["what"] == DENSE and "can be asked" in found["answer"]["why"]


def test_missed_on_the_held_out_side_it_stays_dense(
    made: Made, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the tuning side said."""
    from prunus.tune import evidence

    plain = evidence.Evidence.right

    def right(self: Any, ledger: Any, numbers: Any) -> Any:
        own = plain(self, ledger, numbers)
        held_out = self._course.number == 1 and ledger is not self._course.dense
        return np.zeros_like(own) if held_out else own

    monkeypatch.setattr(evidence.Evidence, "right", right)
    found = run(wish(data(copied), LOSSY), copied)
    assert found["answer"]["what"] == DENSE and found["answer"]["verdict"] == MISSED
    assert "on the held-out questions" in found["answer"]["why"]
    assert found["answer"]["python"] is None


@pytest.mark.parametrize("side", [0, 1])
def test_what_broke_is_no_verdict(
    made: Made, copied: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """Of the search, or of the last look."""
    plain = Course.take

    def take(self: Any, task: Any, message: Any) -> Any:
        count = plain(self, task, message)
        if self.number == side and (own := self.ledgers[task.column]).column.cell.prunes:
            own.failed = "the process that asked it died"
        return count

    monkeypatch.setattr(Course, "take", take)
    shutil.rmtree(copied / "store")
    with pytest.raises(PrunusError, match="died; so nothing is said"):
        run(wish(data(copied), LOSSY), copied)
    monkeypatch.setattr(Course, "take", plain)
    assert run(wish(data(copied), LOSSY), copied)["answer"]["what"] == PRUNE
