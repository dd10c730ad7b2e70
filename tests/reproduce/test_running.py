"""What is measured is stored and not measured again; refusals are told; averages are alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prunus.errors import PrunusError
from prunus.reproduce.judge import Measured
from prunus.reproduce.recipe import Arm, find_recipe
from prunus.reproduce.result import Reproduction
from prunus.reproduce.running import reproduce
from prunus.reproduce.store import Store
from prunus.reproduce.tables import markdown

RECIPE = find_recipe("clse-7")


class Judge:
    """Measures two columns of clse-7; ``stop`` is the job before which it is stopped."""

    def __init__(self, stop: int | None = None, refuse: str = "") -> None:
        self.done: list[tuple[str, str]] = []
        self._stop, self._refuse = stop, refuse

    def jobs(self, arm: Arm) -> Sequence[str]:
        return ["GQA", "MME"]

    def identity(self, arm: Arm, job: str) -> dict[str, Any]:
        return {"arm": arm.words, "job": job}

    def measure(self, arm: Arm, job: str) -> Measured:
        if len(self.done) == self._stop:
            raise KeyboardInterrupt
        if self._refuse and self._refuse in arm.method:
            raise PrunusError(f"{arm.method} is refused")
        self.done.append((arm.words, job))
        value = {"GQA": 60.0, "MME": 1800.0}[job]
        return Measured({job: value if arm.method == "none" else value / 2}, {"questions": 3})


class Quiet:
    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self, total: int) -> None:
        self.total = total

    def step(self, words: str) -> None:
        pass

    def say(self, line: str) -> None:
        self.said.append(line)


def run(place: Path, judge: Judge, watch: Quiet | None = None) -> Reproduction:
    return reproduce(RECIPE, RECIPE.arms(), [judge], Store(place), watch or Quiet())


def test_a_second_call_goes_on(tmp_path: Path) -> None:
    stopped = Judge(stop=5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stopped)
    rest = Judge()
    found = run(tmp_path, rest)
    everything = [(arm.words, job) for arm in RECIPE.arms() for job in ("GQA", "MME")]
    assert stopped.done + rest.done == everything
    again = Judge(stop=0)  # would be stopped at once
    assert run(tmp_path, again)["lines"] == found["lines"] and not again.done


def test_what_is_broken_is_measured_again(tmp_path: Path) -> None:
    run(tmp_path, Judge())
    first, second, third, *_ = sorted(tmp_path.glob("*.json"))
    first.write_text(first.read_text().replace("questions", "questionz"))
    second.write_text("{")
    third.write_text("[]")
    watch, judge = Quiet(), Judge()
    found = run(tmp_path, judge, watch)
    again = [line for line in watch.said if "measured again" in line]
    assert len(judge.done) == 3 and len(again) == 3
    total = 2 * len(RECIPE.arms())
    [kept] = [line for line in watch.said if line not in again]
    assert kept.startswith(f"{total - 3} of {total} measurements were there already")
    assert found["lines"] == run(tmp_path, Judge(stop=0))["lines"]


def test_what_was_stored_in_another_form_is_measured_again(tmp_path: Path) -> None:
    """Even if its check sum is right."""
    store = Store(tmp_path)
    store.write({"a": 1}, {"values": {"GQA": 1.5}, "facts": {}})
    assert store.read({"a": 1}) == {"values": {"GQA": 1.5}, "facts": {}}
    for wrong in ({"values": {}}, {"values": {"GQA": "1"}, "facts": {}}, {"facts": {}}):
        store.write({"a": 1}, wrong)
        assert store.read({"a": 1}) is None and "damaged: measured" in store.told[-1]


def test_published_stands_beside_measured(tmp_path: Path) -> None:
    found = run(tmp_path, Judge())
    dense, _, line, *_ = found["lines"]
    assert dense["row"] == "dense" and dense["published"]["GQA"] == 61.9
    assert found["columns"] == ["GQA", "MME"] and found["other_model"] is None
    assert line["row"] == "CLSE-H, tau 0.1" and line["method"] == "clse@hybrid:temperature=0.1"
    assert line["measured"] == {"GQA": 30.0, "MME": 900.0}
    assert line["published"]["GQA"] == 60.9 and line["measured_relative"] == pytest.approx(50.0)
    # over the two columns that were measured, of the four that there are
    own = (60.9 / 61.9 + 1815 / 1862) / 2
    assert line["published_relative"] == pytest.approx(100 * own)
    assert [one["row"] for one in found["left_out"]] == ["CLSE-H, no z-score"]


def test_a_refusal_is_told_and_others_go_on(tmp_path: Path) -> None:
    watch = Quiet()
    found = run(tmp_path, Judge(refuse="temperature=10"), watch)
    [refused] = [one for one in found["lines"] if one["why_not"]]
    assert set(refused["why_not"]) == {"GQA", "MME"} and "tau 10" in refused["row"]
    assert refused["measured_relative"] is None and len(watch.said) == 2
    assert sum("GQA" in one["measured"] for one in found["lines"]) == len(found["lines"]) - 1
    # it is tried again: what refuses may have been mended
    again = Judge()
    run(tmp_path, again)
    assert len(again.done) == 2


def test_markdown_says_all_of_it(tmp_path: Path) -> None:
    found = run(tmp_path, Judge(refuse="temperature=10"))
    text = markdown(found)
    assert "| CLSE-H, tau 0.1 | 192 | clse@hybrid:temperature=0.1, 192 | 60.9 / 30.0 |" in text
    for words in ("Rows that were not measured", "Refused", "Known of the published", "Made by"):
        assert f"## {words}" in text
    other = markdown({**found, "other_model": "tiny-llava"})
    assert "ANOTHER MODEL, tiny-llava" in other and "ANOTHER MODEL" not in text
