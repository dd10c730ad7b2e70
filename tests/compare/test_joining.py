"""Comparisons that were made apart, as one."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from prunus.compare.contract import Comparison, Row
from prunus.compare.joining import joined
from prunus.compare.notes import notes_of_rows, notes_of_statistics, own_notes
from prunus.compare.output import write_comparison
from prunus.compare.setting import RunSpec
from prunus.errors import PrunusFileError
from tests.compare.sample import make_comparison
from tests.compare.small import SMALL, run, same
from tests.support.command_line import Cli, refused

Made = tuple[Comparison, Path]
QUICK = replace(SMALL, rounds=0, pictures=0)


def row_of(comparison: Comparison, key: str, number: int = 0) -> Row:
    return next(one for one in comparison["runs"][number]["rows"] if one["key"] == key)


def test_one_is_the_same(made: Made) -> None:
    assert joined([made[0]]) == made[0]


def test_methods_that_were_asked_apart_are_judged_together(made: Made, tmp_path: Path) -> None:
    """As if all had been asked at once: rivals are met, and all are corrected for."""
    whole = run(QUICK, tmp_path / "whole")
    parts = [
        run(replace(QUICK, methods=names), tmp_path / str(number))
        for number, names in enumerate([("divprune", "random"), ("fastv", "random")])
    ]
    assert "divprune" not in row_of(parts[1], "fastv|true|0.2")["against"]
    both = joined(parts)
    assert {row["key"]: row for row in both["runs"][0]["rows"]} == {
        row["key"]: row for row in whole["runs"][0]["rows"]
    }
    assert both["runs"][0]["right"] == whole["runs"][0]["right"]
    assert both["runs"][0]["answers"] == whole["runs"][0]["answers"]
    assert both["methods"] == whole["methods"] and both["runs"][0]["rival"] == "divprune"
    assert [row["meaning"] for row in both["runs"][0]["rows"]] == ["true"] * 3 + ["nominal"] * 3
    assert both["made"]["seconds"] == sum(one["made"]["seconds"] for one in parts)
    other = joined(parts, "fastv")
    assert set(row_of(other, "divprune|true|0.2")["against"]) == {"dense", "random", "fastv"}


def test_other_models_stand_beside_each_other(made: Made, tmp_path: Path) -> None:
    setting = replace(QUICK, runs=(RunSpec("tiny-qwen", "scenes"),), methods=("uniform",), limit=2)
    other = run(setting, tmp_path / "other")
    both = joined([made[0], other])
    assert [one["id"] for one in both["runs"]] == ["tiny-llava/scenes", "tiny-qwen/scenes"]
    assert both["runs"] == [made[0]["runs"][0], other["runs"][0]]
    assert set(both["methods"]) == {"divprune", "random", "fastv", "uniform"}
    assert both["pictures"] == made[0]["pictures"] and both["title"] == "prunus compare"
    assert both["made"]["apart"] == [made[0]["made"], other["made"]]  # type: ignore[typeddict-item]
    again = joined([both, other])["made"]
    assert again["apart"] == [made[0]["made"], other["made"], other["made"]]  # type: ignore[typeddict-item]
    assert set(both["made"]["dtype"]) == {"tiny-llava", "tiny-qwen"}
    assert both["published"] == made[0]["published"]
    paths = write_comparison(tmp_path / "out", both)
    assert "tiny-qwen on built-in scenes" in (tmp_path / "out" / "table.md").read_text("utf-8")
    assert all(path.stat().st_size for path in paths)


def test_old_numbers_are_judged_anew(made: Made) -> None:
    """What an older version wrote of intervals is nothing to build on."""
    old = copy.deepcopy(made[0])
    row = row_of(old, "fastv|true|0.2")
    row["accuracy"]["low"] = row["against"]["dense"]["p"] = 0.0
    row["by_type"] = {}
    old["notes"] = ["Accuracies have no interval", "refused: nothing", *old["notes"]]
    assert joined([old]) == made[0]


def test_what_was_left_out_is_still_said() -> None:
    own = ["tiny/mine: 1 questions were left out:", "  line 4: no JSON", "left out: b on c: no"]
    general = [*notes_of_statistics(7), *notes_of_rows(make_comparison(9, 0)["runs"])]
    assert any(note.startswith("refused:") for note in general)
    assert own_notes([*general, *own]) == own


def test_runs_that_do_not_belong_together_are_refused(made: Made) -> None:
    other = copy.deepcopy(made[0])
    other["runs"][0]["questions_list"][0]["text"] = "another?"
    with pytest.raises(PrunusFileError, match="not of the same questions"):
        joined([made[0], other])
    other = copy.deepcopy(made[0])
    marks = other["runs"][0]["right"]
    marks["fastv|true|0.2"] = marks["fastv|true|0.2"].translate({48: 49, 49: 48})
    with pytest.raises(PrunusFileError, match=r"comparison 2 .* fastv\|true\|0\.2"):
        joined([made[0], other])
    other["runs"][0]["right"] = {}
    with pytest.raises(PrunusFileError, match="no mark for each"):
        joined([other])


def test_of_one_row_the_one_that_says_more(made: Made, tmp_path: Path) -> None:
    """More seeds, times, and an answer rather than a refusal."""
    fewer = copy.deepcopy(made[0])
    [one] = fewer["runs"]
    lots = row_of(fewer, "random|true|0.2")
    lots["seeds"] = [0]
    del one["right"]["random|true|0.2#1"]
    one["rows"] = [row for row in one["rows"] if row["method"] != "divprune"]
    gone = copy.deepcopy(row_of(fewer, "fastv|true|0.2"))
    gone["refused"] = "failed: it broke"
    one["rows"][[row["key"] for row in one["rows"]].index(gone["key"])] = gone
    for row in one["rows"]:
        row["cost"]["time"] = None
    for order in ([fewer, made[0]], [made[0], fewer]):
        both = joined(order)
        assert same(both)["runs"][0]["right"].keys() == made[0]["runs"][0]["right"].keys()
        for row in both["runs"][0]["rows"]:
            assert row == row_of(made[0], row["key"])
        assert both["pictures"] == made[0]["pictures"]


def test_from_the_command_line(cli: Cli, made: Made, tmp_path: Path) -> None:
    other = copy.deepcopy(made[0])
    other["runs"][0] |= {"id": "b/c", "model": "b"}  # type: ignore[typeddict-item]
    other["pictures"] = []
    write_comparison(tmp_path / "a", made[0])
    write_comparison(tmp_path / "b", other)
    page = tmp_path / "leaderboard.md"
    for several in (
        ("--from", f"{tmp_path / 'a'},{tmp_path / 'b' / 'comparison.json'}"),
        ("--from", tmp_path / "a", "--from", tmp_path / "b"),
    ):
        result = cli("compare", *several, "--markdown", page, "--output", tmp_path / "both")
        assert result.code == 0, result.err
        saved = json.loads((tmp_path / "both" / "comparison.json").read_text("utf-8"))
        assert [one["id"] for one in saved["runs"]] == ["tiny-llava/scenes", "b/c"]
        assert "## b on built-in scenes" in page.read_text("utf-8")
    twice = ("--from", tmp_path / "a", "--from", tmp_path / "a")
    refused(cli("compare", *twice), "more than once")
    refused(cli("compare", "--from", f"{tmp_path / 'a'},{tmp_path / 'no'}"), "no")
