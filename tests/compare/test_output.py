"""What is written: one object, tables for people, tables for programs."""

import copy
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from prunus.compare.contract import Comparison
from prunus.compare.output import needed, read_comparison, row_lines, write_comparison
from prunus.compare.tables import latex, markdown
from prunus.errors import PrunusError, PrunusFileError

Made = tuple[Comparison, Path]


def test_everything_is_written_and_read(made: Made, tmp_path: Path) -> None:
    comparison = made[0]
    paths = write_comparison(tmp_path / "out", comparison)
    assert [path.name for path in paths] == [
        "comparison.json", "table.md", "table.tex", "page.html", "answers.parquet",
        "rows.parquet",
    ]  # fmt: skip
    again = read_comparison(tmp_path / "out")
    assert again == json.loads(json.dumps(comparison))
    assert set(again) == Comparison.__required_keys__ and again["format"] == 1
    answers = pyarrow.parquet.read_table(paths[4]).to_pylist()
    [run] = comparison["runs"]
    assert len(answers) == 7 * len(run["right"])
    cell = [one for one in answers if one["key"] == "random|true|0.2" and one["seed"] == 1]
    assert [one["given"] for one in cell] == run["answers"]["random|true|0.2#1"]
    assert "".join("01"[one["right"]] for one in cell) == run["right"]["random|true|0.2#1"]
    rows = {one["key"]: one for one in pyarrow.parquet.read_table(paths[5]).to_pylist()}
    own = next(row for row in run["rows"] if row["key"] == "fastv|nominal|0.2")
    flat = rows["fastv|nominal|0.2"]
    assert flat["accuracy_value"] == own["accuracy"]["value"] and flat["rival"] == "divprune"
    assert flat["rival_p"] == own["against"]["divprune"]["p"]
    assert own["cost"]["time"] is not None
    assert flat["cost_time_median"] == own["cost"]["time"]["median"]
    assert rows["dense"]["dense_value"] is None and rows["random|true|0.2"]["seeds"] == [0, 1]


def test_a_rival_may_have_dots_in_its_name(made: Made) -> None:
    whole = copy.deepcopy(made[0])
    row = next(one for one in whole["runs"][0]["rows"] if one["method"] == "fastv")
    row["against"]["mmr:weight=0.6"] = row["against"].pop("divprune")
    flat = next(one for one in row_lines(whole) if one["key"] == row["key"])
    assert flat["rival"] == "mmr:weight=0.6"
    assert flat["rival_p"] == row["against"]["mmr:weight=0.6"]["p"]


def test_something_else_is_no_comparison(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text('{"format": 1}')
    with pytest.raises(PrunusFileError, match="no comparison"):
        read_comparison(path)
    path.write_text(json.dumps({**made[0], "format": 99}))
    with pytest.raises(PrunusFileError, match="format 99"):
        read_comparison(path)


def test_tables_have_every_row(made: Made) -> None:
    [run] = made[0]["runs"]
    text = markdown(made[0])
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + 1 + len(run["rows"])
    assert len({line.count("|") for line in lines}) == 1
    row = next(one for one in run["rows"] if one["key"] == "fastv|nominal|0.2")
    [line] = [one for one in lines if one.startswith("| fastv | nominal | 115 |")]
    for part in (f"{row['average']:.1f}", f"{row['cost']['kv']:.1%}"):
        assert f" {part} " in line
    assert "random (2 seeds)" in text and made[0]["made"]["versions"]["torch"] in text
    for note in made[0]["notes"]:
        assert note in text


def test_latex_holds_together(made: Made) -> None:
    comparison = {**made[0], "title": "50 % of {x}\nand more"}
    text = latex(comparison)  # type: ignore[arg-type]
    bare = re.sub(r"\\[%#&_{}$]", "", text)
    body = [line for line in bare.splitlines() if not line.startswith("%")]
    assert not any("%" in line or "_" in line for line in body)
    assert sum(line.count("{") - line.count("}") for line in body) == 0
    [columns] = re.findall(r"\\begin{tabular}{(l+r+)}", bare)
    cells = [line for line in body if line.endswith(r"\\")]
    assert len(cells) == 2 + len(made[0]["runs"][0]["rows"])
    assert {line.count("&") + 1 for line in cells} == {len(columns)}
    for name in ("table", "tabular"):
        assert bare.count(rf"\begin{{{name}}}") == bare.count(rf"\end{{{name}}}") == 1


def test_without_pyarrow_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PrunusError, match=r"pip install 'prunus\[compare\]'"):
        needed()


def test_pictures_show_what_was_kept(made: Made) -> None:
    comparison = made[0]
    [run], [picture] = comparison["runs"], comparison["pictures"]
    assert picture["png"].startswith("data:image/png;base64,iVBOR")
    assert (picture["grid"], picture["frames"], len(picture["cells"])) == ([1, 24, 24], 1, 576)
    width, height = picture["size"]
    assert picture["cells"][0][:2] == [0, 0] and picture["cells"][-1][2:] == [width, height, 0]
    assert set(picture["shown"]) == {row["key"] for row in run["rows"]}
    for row in run["rows"]:
        shown = picture["shown"][row["key"]]
        assert len(shown["kept"][-1]) == row["kept"] and shown["kept"][0] == sorted(
            shown["kept"][0]
        )
        assert len(shown["kept"]) == len(shown["layers"]) == len(shown["labels"])
        seed = "#0" if row["seeds"] else ""
        assert shown["answer"] == run["answers"][row["key"] + seed][picture["question"]]
    assert len(picture["shown"]["random|true|0.2"]["scores"] or []) == 576
    assert picture["text"] == run["questions_list"][picture["question"]]["text"]
