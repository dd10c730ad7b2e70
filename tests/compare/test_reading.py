"""What is read again: a comparison, whatever is wrong in it, is refused or as good as another."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunus.compare.contract import Comparison
from prunus.compare.joining import joined
from prunus.compare.output import write_comparison
from prunus.compare.page.__main__ import main
from prunus.compare.reading import checked, read_comparison
from prunus.errors import PrunusError, PrunusFileError
from tests.support.command_line import Cli, refused
from tests.support.damage import damaged

Made = tuple[Comparison, Path]


def test_whatever_is_wrong_is_refused_with_its_place(made: Made) -> None:
    """Never another exception; and what is taken can be judged anew."""
    whole = json.loads(json.dumps(made[0]))
    [run], name = whole["runs"], "random|true|0.2"
    run["rows"] = [row for row in run["rows"] if row["key"] == name]
    for part in ("right", "answers"):
        run[part] = {key: run[part][key] for key in ("dense", f"{name}#0", f"{name}#1")}
    whole["pictures"][0]["shown"] = {name: whole["pictures"][0]["shown"][name]}
    for row in (run["dense"], *run["rows"]):
        row["by_type"] = {}  # judged anew
    whole |= {
        "published": [],
        "methods": {"random": whole["methods"]["random"]},
    }
    told: dict[str, str] = {}
    for name, one in damaged(whole):
        told[name] = ""
        try:
            found = checked(one, "a.json")
            if name.startswith(("runs", "made")):
                joined([found])
        except PrunusFileError as error:
            told[name] = str(error)
    assert len(told) > 1000
    for name, words in told.items():
        assert not words or "'a.json'" in words or "make the comparison anew" in words, name
    taken = [name for name, words in told.items() if not words]
    odd = (": nan", ": {'x': None}")
    wrong = [name for name in taken if name.endswith(odd) and "settings" not in name]
    assert not wrong and len(taken) < len(told) / 3


def wrong_run(change: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda whole: change(whole["runs"][0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda whole: whole.update(runs=[]), "no runs"),
        (lambda whole: whole["runs"].append(whole["runs"][0]), "two runs"),
        (lambda whole: whole["made"].update(settings={"rounds": "x"}), "rounds is 'x'"),
        (lambda whole: whole["made"].update(apart=[{}]), "made.apart[0] has no 'command'"),
        (lambda whole: whole["pictures"][0].update(run="no"), "there is no run 'no'"),
        (lambda whole: whole["pictures"][0].update(question=99), "no question 99"),
        (lambda whole: whole["pictures"][0].update(size=[1]), "size has 1 numbers, not 2"),
        (wrong_run(lambda run: run["rows"].append(run["rows"][0])), "two rows have the key"),
        (wrong_run(lambda run: run["rows"][0].pop("cost")), "it has no 'cost', and is not refused"),
        (wrong_run(lambda run: run["rows"][0].update(meaning="mean")), "true, nominal or own"),
        (wrong_run(lambda run: run["rows"][0].update(average=float("nan"))), "average is nan"),
        (wrong_run(lambda run: run["dense"].update(refused="no")), "no row 'dense' with answers"),
        (wrong_run(lambda run: run["right"].update(dense="01")), "2 values for 7 questions"),
        (wrong_run(lambda run: run["right"].update(dense="012xyz1")), "other signs than 0 and 1"),
        (wrong_run(lambda run: run["right"].update({"a|b": "0" * 7})), "of no row"),
        (wrong_run(lambda run: run["answers"].update(dense=["x"])), "1 values for 7 questions"),
        (wrong_run(lambda run: run.update(scores={})), "scores has no"),
        (wrong_run(lambda run: run.update(thumbnails={"x": ""})), "no number of an image"),
        (wrong_run(lambda run: run.update(questions_list=[])), "questions_list is empty"),
    ],
)
def test_what_contradicts_itself_is_refused(
    made: Made, change: Callable[[Any], None], words: str
) -> None:
    whole = copy.deepcopy(made[0])
    change(whole)
    with pytest.raises(PrunusFileError, match="a.json.* is damaged") as caught:
        checked(whole, "a.json")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("kept", [[576]]), ("kept", []), ("scores", [0.1]), ("into", [576] * 576), ("into", [0])],
)
def test_tokens_that_are_not_there_are_refused(made: Made, name: str, value: Any) -> None:
    whole: Any = copy.deepcopy(made[0])
    key, shown = next(iter(whole["pictures"][0]["shown"].items()))
    shown[name] = value
    with pytest.raises(PrunusFileError, match="is damaged") as caught:
        checked(whole, "a.json")
    assert f"shown[{key!r}]" in str(caught.value)


def test_what_is_said_is_one_line(cli: Cli, made: Made, tmp_path: Path) -> None:
    write_comparison(tmp_path / "out", made[0])
    path = tmp_path / "out" / "comparison.json"
    assert read_comparison(path) == read_comparison(tmp_path / "out")
    whole = json.loads(path.read_text("utf-8"))
    whole["runs"][0]["rows"][1]["average"] = "many"
    path.write_text(json.dumps(whole))
    place = "runs[0].rows[1].average is 'many', and has to be a number"
    refused(cli("compare", "--from", tmp_path / "out"), "comparison.json", place)
    assert main([str(path), str(tmp_path / "page.html")]) == 1
    path.write_text("[1, 2]")
    with pytest.raises(PrunusError, match="no comparison"):
        read_comparison(path)
