"""A comparison is the same however it came about, and says what went wrong."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunus.compare.contract import Comparison
from prunus.compare.setting import RunSpec
from prunus.compare.statistics import mean_change
from prunus.compare.store import Store
from prunus.errors import PrunusError, PrunusStateError
from prunus.evaluate import evaluate, load_builtin_set, make_cells, summarise
from prunus.io.claim import claim
from prunus.loading import load
from prunus.tasks.sample import load_sample
from tests.compare.small import SMALL, Listener, run, same

Made = tuple[Comparison, Path]


def test_numbers_are_those_of_eval(made: Made) -> None:
    [ours] = made[0]["runs"]
    few = load_builtin_set().first(7)
    cells = make_cells(["divprune", "random", "fastv"], [0.2], [0, 1])
    outcomes = evaluate(*load("tiny-llava"), few, cells, batch=3)
    rows = {row.name: row for row in summarise(few, outcomes)}
    found = {row["method"]: row for row in ours["rows"] if row["meaning"] == "nominal"}
    assert set(found) == {"divprune", "random", "fastv"}
    for name, row in found.items():
        other = rows[name]
        assert row["accuracy"]["value"] == other.accuracy.value
        assert row["per_seed"] == list(other.per_seed) and row["nominal"] == other.nominal == 115
        for figure in ("average", "kept", "resident"):
            assert row[figure] == pytest.approx(other.figures[figure])
        for figure in ("llm_flops", "flops", "kv"):
            assert row["cost"][figure] == pytest.approx(other.figures[f"{figure}_ratio"])
        assert other.difference is not None and other.changed is not None
        assert row["against"]["dense"]["value"] == other.difference.value
        assert row["against"]["dense"]["lost"] == other.changed.lost
        assert np.mean(row["per_layer"]) == pytest.approx(row["average"])
    dense = ours["dense"]
    assert dense["average"] == ours["tokens"] == 576 and dense["cost"]["flops"] == 1.0
    assert dense["accuracy"]["value"] == rows["dense"].accuracy.value
    cell = next(o for o in outcomes if o.cell.name == "random" and o.cell.seed == 1)
    assert ours["answers"]["random|nominal|0.2#1"] == cell.answers


def test_rivals_are_met_at_the_same_budget(made: Made) -> None:
    [ours] = made[0]["runs"]
    images = np.array([one["image"] for one in ours["questions_list"]])
    right = {key: np.array([mark == "1" for mark in m]) for key, m in ours["right"].items()}
    row = next(one for one in ours["rows"] if one["key"] == "fastv|true|0.2")
    assert set(row["against"]) == {"dense", "random", "divprune"} and ours["rival"] == "divprune"
    lots = np.mean([right["random|true|0.2#0"], right["random|true|0.2#1"]], axis=0)
    expected = mean_change(right["fastv|true|0.2"] - lots, images)
    assert row["against"]["random"]["value"] == expected.value
    assert row["against"]["random"]["low"] == expected.low
    own = next(one for one in ours["rows"] if one["method"] == "divprune")
    assert set(own["against"]) == {"dense", "random"}


def test_true_budgets_are_true(made: Made) -> None:
    [ours] = made[0]["runs"]
    for row in ours["rows"]:
        if row["meaning"] == "true":
            assert abs(row["average"] - 115) <= 0.5
    nominal = next(one for one in ours["rows"] if one["key"] == "fastv|nominal|0.2")
    assert nominal["average"] > 150 and nominal["kept"] == 115


def test_where_both_budgets_are_one_it_is_asked_once(made: Made) -> None:
    comparison, place = made
    [ours] = comparison["runs"]
    assert len(list((place / "answers").iterdir())) == 1 + 1 + 2 * 2 + 2
    both = {row["key"]: row for row in ours["rows"] if row["method"] == "divprune"}
    assert set(both) == {"divprune|true|0.2", "divprune|nominal|0.2"}
    assert ours["right"]["divprune|true|0.2"] == ours["right"]["divprune|nominal|0.2"]


def test_nothing_is_asked_twice(made: Made) -> None:
    comparison, place = made
    before = {one: one.read_bytes() for one in place.rglob("*.json*")}
    listener = Listener()
    again = run(SMALL, place, listener)
    assert listener.asked == 0 and same(again) == same(comparison)
    assert again["runs"][0]["rows"] == comparison["runs"][0]["rows"]  # times, too
    assert {one: one.read_bytes() for one in place.rglob("*.json*")} == before


def test_more_methods_and_questions_ask_what_is_missing(made: Made, tmp_path: Path) -> None:
    place = tmp_path / "store"
    shutil.copytree(made[1], place)
    quick = replace(SMALL, rounds=0, pictures=0)
    listener = Listener()
    more = run(replace(quick, methods=("divprune", "uniform")), place, listener)
    assert listener.asked == 2 * 7  # uniform, with either budget
    assert {row["method"] for row in more["runs"][0]["rows"]} == {"divprune", "uniform"}
    listener = Listener()
    nine = replace(quick, methods=("divprune",), limit=9)
    more = run(nine, place, listener)
    assert listener.asked == 2 * 2 and more["runs"][0]["questions"] == 9
    assert same(more) == same(run(nine, tmp_path / "new"))


def test_time_is_that_of_all_runs(tmp_path: Path) -> None:
    """Of those that asked something, the one that was stopped among them."""
    quick = replace(SMALL, methods=("uniform",), meanings=("true",), rounds=0, pictures=0)
    with pytest.raises(KeyboardInterrupt):
        run(quick, tmp_path, Listener(stop=5))
    first = Store(tmp_path).spent()
    whole = run(quick, tmp_path)["made"]["seconds"]
    assert 0 < first < whole == Store(tmp_path).spent()
    listener = Listener()
    assert run(quick, tmp_path, listener)["made"]["seconds"] == whole  # it asked nothing
    assert not any("no part of the store" in line for line in listener.lines)


def test_stopped_in_the_middle_it_goes_on(made: Made, tmp_path: Path) -> None:
    """After Ctrl-C what was answered is there, and the rest gives what one go gives."""
    quick = replace(SMALL, rounds=0, pictures=0)
    total = 7 * (1 + 1 + 4 + 2)
    with pytest.raises(KeyboardInterrupt):
        run(quick, tmp_path, Listener(stop=20))
    listener = Listener()
    found = run(quick, tmp_path, listener)
    assert total - 20 - 3 <= listener.asked <= total - 20  # a batch of three was in work
    assert listener.known == total - listener.asked
    (whole,) = same(made[0])["runs"]
    assert whole.pop("thumbnails")  # pictures were not wanted this time
    assert same(found)["runs"] == [whole]
    for path in (tmp_path / "answers").iterdir():
        names = [name for line in path.read_text("utf-8").splitlines()[1:] for name in _given(line)]
        assert len(names) == len(set(names)) == 7  # nothing is there twice


def _given(line: str) -> list[str]:
    return list(json.loads(line)["batch"]["given"])


DIES = """
import os
from dataclasses import dataclass

from prunus.pruners.uniform import Uniform


@dataclass(frozen=True)
class Dies(Uniform):
    name = "compare-dies"

    def select(self, stage, view):
        os._exit(3)
"""
RAISES = """
from dataclasses import dataclass

from prunus.pruners.uniform import Uniform


@dataclass(frozen=True)
class Raises(Uniform):
    name = "compare-raises"

    def select(self, stage, view):
        raise RuntimeError("no idea")
"""


def test_two_processes_of_which_some_die(made: Made, tmp_path: Path) -> None:
    """Workers change nothing. One that dies is told with what it was asking; the rest goes on."""
    (tmp_path / "dies.py").write_text(DIES)
    bad = f"{tmp_path / 'dies.py'}:Dies"
    setting = replace(
        SMALL, methods=(*SMALL.methods, bad), meanings=("nominal",), rounds=0, pictures=0
    )
    listener = Listener()
    found = run(setting, tmp_path / "store", listener, workers=2)
    rows = {row["key"]: row for row in found["runs"][0]["rows"]}
    assert rows.pop("compare-dies|nominal|0.2")["refused"] == (
        "failed: the process that asked it died (exit code 3)"
    )
    assert any("compare-dies at 0.2" in line and "exit code 3" in line for line in listener.lines)
    assert listener.steps["answers"] == listener.asked
    alone = made[0]["runs"][0]
    for key in ("answers", "right"):
        assert found["runs"][0][key] == {  # type: ignore[literal-required]
            name: one
            for name, one in alone[key].items()  # type: ignore[literal-required]
            if "true" not in name
        }
    theirs = {row["key"]: row for row in alone["rows"] if row["meaning"] == "nominal"}
    assert {key: row["accuracy"] for key, row in rows.items()} == {
        key: row["accuracy"] for key, row in theirs.items()
    }
    for key, row in rows.items():
        assert row["per_layer"] == theirs[key]["per_layer"]
        assert row["cost"]["flops"] == theirs[key]["cost"]["flops"]


def test_what_raises_or_is_refused_stands_in_its_row(tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text(RAISES)
    bad = f"{tmp_path / 'raises.py'}:Raises:layer=none"
    names = ("uniform:layer=none", bad, "fastv", "stepwise")
    setting = replace(
        SMALL, methods=names, keeps=(0.05,), meanings=("true",), rounds=0, pictures=1, limit=3
    )
    listener = Listener()
    found = run(setting, tmp_path / "store", listener)
    rows = {row["method"]: row["refused"] for row in found["runs"][0]["rows"]}
    assert rows["compare-raises:layer=none"] == "failed: RuntimeError: no idea"
    assert rows["fastv"] is not None and "cannot average 28" in rows["fastv"]
    assert rows["stepwise"] is None and rows["uniform:layer=none"] is None
    notes = [note for note in found["notes"] if note.startswith("refused:")]
    assert len(notes) == 2 == len(listener.lines)
    again = Listener()
    assert run(setting, tmp_path / "store", again)["runs"] == found["runs"]
    assert again.asked == 3  # what failed is tried again, what was refused is not


def test_one_run_that_cannot_be_had_does_not_end_the_others(tmp_path: Path) -> None:
    runs = (RunSpec("tiny-llava", "videos"), RunSpec("tiny-llava", "scenes"))
    setting = replace(SMALL, runs=runs, methods=("uniform",), limit=2, rounds=0, pictures=0)
    found = run(setting, tmp_path)
    assert [one["id"] for one in found["runs"]] == ["tiny-llava/scenes"]
    assert any(note.startswith("left out: tiny-llava on videos") for note in found["notes"])
    with pytest.raises(PrunusError, match="video"):
        run(replace(setting, runs=runs[:1]), tmp_path)


def test_two_runs_into_one_store_are_refused(tmp_path: Path) -> None:
    found: list[str] = []

    def other() -> None:
        try:
            run(SMALL, tmp_path)
        except PrunusStateError as error:
            found.append(str(error))

    with claim(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found and "another run" in found[0]


def test_questions_that_cannot_be_asked(tmp_path: Path) -> None:
    load_sample()[0].save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    lines = [
        {"image": "a.png", "question": "how many objects are there?", "answer": "four"},
        {"image": "broken.png", "question": "how many objects are there?", "answer": "one"},
        {"image": "a.png", "question": "what <image> is this?", "answer": "one"},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\nno JSON\n")
    setting = replace(
        SMALL, runs=(RunSpec("tiny-llava", str(path)),), methods=("uniform",), rounds=0, limit=None
    )
    with pytest.raises(PrunusError, match="line 4"):
        run(setting, tmp_path / "store")
    found = run(replace(setting, skip=True), tmp_path / "store")
    [one] = found["runs"]
    assert one["questions"] == 1 and one["id"] == "tiny-llava/mine"
    assert any("3 questions were left out" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("question", "image", "words"),
    [
        ("which?", b"no image", "no image that Pillow"),
        ("which <image>?", None, "holds the placeholder"),
    ],
)
def test_nothing_is_left_that_can_be_asked(
    tmp_path: Path, question: str, image: bytes | None, words: str
) -> None:
    """Of one set it is refused; beside another that can be asked, it is left out."""
    load_sample()[0].save(tmp_path / "a.png")
    if image is not None:
        (tmp_path / "a.png").write_bytes(image)
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"image": "a.png", "question": question, "answer": "one"}))
    own = RunSpec("tiny-llava", str(path))
    setting = replace(
        SMALL, rounds=0, pictures=0, runs=(own,), methods=("uniform",), skip=True, limit=2
    )
    with pytest.raises(PrunusError, match=rf"the only question of .*mine.jsonl.*{words}"):
        run(setting, tmp_path / "store")
    runs = (own, RunSpec("tiny-llava", "scenes"))
    listener = Listener()
    found = run(replace(setting, runs=runs), tmp_path / "store", listener)
    assert [one["id"] for one in found["runs"]] == ["tiny-llava/scenes"]
    [note] = [note for note in found["notes"] if note.startswith("left out: ")]
    assert words in note and note in listener.lines


def test_a_refusal_is_that_of_its_own_question(tmp_path: Path) -> None:
    """Of a batch, some may be asked: a smaller set has its row, whatever was asked before."""
    rng = np.random.default_rng(0)
    lines = []
    for name, side in (("small", 112), ("large", 448)):
        pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        lines.append(json.dumps({"image": f"{name}.png", "question": "a?", "answer": "a"}))
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    both = replace(
        SMALL,
        runs=(RunSpec("tiny-qwen", str(tmp_path / "mine.jsonl")),),
        methods=("ivc-prune",),
        keeps=(30,),  # more than the least average of the small one, less than that of the other
        meanings=("true",),
        rival=None,
        limit=None,
        part=8,
        pictures=0,
        rounds=0,
    )
    for limit, refused in ((None, True), (1, False), (None, True)):
        [row] = run(replace(both, limit=limit), tmp_path / "store")["runs"][0]["rows"]
        assert (row["refused"] is not None) == refused
