"""What is written: one object, tables for people, tables for programs."""

import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest

from prunus.compare import cells
from prunus.compare.contract import Comparison
from prunus.compare.latex import latex, wide_latex
from prunus.compare.output import needed, row_lines, write_comparison
from prunus.compare.reading import read_comparison
from prunus.compare.tables import markdown
from prunus.errors import PrunusError, PrunusFileError
from tests.compare.sample import make_comparison

Made = tuple[Comparison, Path]


def test_everything_is_written_and_read(made: Made, tmp_path: Path) -> None:
    comparison = made[0]
    paths = write_comparison(tmp_path / "out", comparison)
    assert [path.name for path in paths] == [
        "comparison.json", "table.md", "table.tex", "table-wide.tex", "page.html",
        "answers.parquet", "rows.parquet",
    ]  # fmt: skip
    again = read_comparison(tmp_path / "out")
    assert again == json.loads(json.dumps(comparison))
    assert set(again) == Comparison.__required_keys__ and again["format"] == 1
    answers = pyarrow.parquet.read_table(paths[5]).to_pylist()
    [run] = comparison["runs"]
    assert len(answers) == 7 * len(run["right"])
    cell = [one for one in answers if one["key"] == "random|true|0.2" and one["seed"] == 1]
    assert [one["given"] for one in cell] == run["answers"]["random|true|0.2#1"]
    assert "".join("01"[one["right"]] for one in cell) == run["right"]["random|true|0.2#1"]
    rows = {one["key"]: one for one in pyarrow.parquet.read_table(paths[6]).to_pylist()}
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


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ")]


def test_the_leaderboard_has_every_row_once(made: Made) -> None:
    """By budget and meaning, the best first; what is the same for both meanings stands once."""
    [run] = made[0]["runs"]
    text = markdown(made[0])
    true, nominal = text.split("### 20.0 %, 115 tokens: ")[1:]
    assert true.startswith("as the average over all layers\n")
    assert nominal.startswith("as published, where that is not the average\n")
    methods = [line.split(" | ")[0] for line in table_lines(true)]
    assert methods[:3] == ["| method", "| ---", "| dense"]
    assert set(methods[3:]) == {"| divprune", "| random (2 seeds)", "| fastv"}
    nominally = {line.split(" | ")[0]: line for line in table_lines(nominal)[3:]}
    assert set(nominally) == {"| random (2 seeds)", "| fastv"}
    for part in (true, nominal):
        assert len({line.count("|") for line in table_lines(part)}) == 1
    accuracies = [float(line.split(" | ")[1].split()[0]) for line in table_lines(true)[3:]]
    assert accuracies == sorted(accuracies, reverse=True)
    row = next(one for one in run["rows"] if one["key"] == "fastv|nominal|0.2")
    against = row["against"]["dense"]
    for part in (
        f"{row['average']:.1f}",
        f"{100 * (row['cost']['kv'] or 0):.1f}",
        f"{100 * (row['cost']['llm_flops'] or 0):.1f}",
        f"{100 * (row['cost']['flops'] or 0):.1f}",
        cells.percent(row["accuracy"]),
        f"{100 * against['value']:+.1f} (p = {against['p_corrected']:.2f})",
    ):
        assert f" {part} |" in nominally["| fastv"], part
    assert made[0]["made"]["versions"]["torch"] in text
    for note in made[0]["notes"]:
        assert note in text


def test_what_is_sure_or_ours_is_bold_and_what_is_refused_is_listed_once() -> None:
    comparison = make_comparison(questions=60, pictures=0)
    text = markdown(comparison)
    assert "| **clse** |" in text and "| fastv |" in text and "## At a glance" in text
    assert re.search(r"\*\*-\d+\.\d \(p [<=] 0\.\d+\)\*\*", text)
    own = [line for line in text.splitlines() if line.startswith("* evs")]
    assert len(own) == sum(run["kind"] == "image" for run in comparison["runs"])
    assert "33.3 %" in own[0] and "11.1 %" in own[0] and "(nominal)" in own[0]
    assert not any(line.startswith("* refused: ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0004, "p < 0.001"), (0.001, "p = 0.001"), (0.0496, "p = 0.050"), (0.2, "p = 0.20")],
)
def test_a_probability_never_looks_smaller_than_it_is(p: float, text: str) -> None:
    assert cells.probability(p) == text


@pytest.mark.parametrize("write", [latex, wide_latex])
def test_latex_holds_together(made: Made, write: Callable[[Comparison], str]) -> None:
    comparison = {**made[0], "title": "50 % of {x}\nand more"}
    text = write(comparison)  # type: ignore[arg-type]
    bare = re.sub(r"\\[%#&_{}$]", "", text)
    body = [line for line in bare.splitlines() if not line.startswith("%")]
    assert not any("%" in line or "_" in line for line in body)
    assert sum(line.count("{") - line.count("}") for line in body) == 0
    tables = bare.split(r"\begin{tabular}")[1:]
    for table in tables:
        columns = re.match(r"{(lr+)}", table)
        cells = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert columns and {line.count("&") + 1 for line in cells} == {len(columns[1])}
    lines = sum(line.endswith(r"\\") for line in body)
    rows = made[0]["runs"][0]["rows"]
    if write is latex:
        assert len(tables) == 2 and lines == 2 * 2 + 3 + 2  # divprune stands once
        assert max(len(line) for line in body if line.endswith(r"\\")) < 100
    else:
        assert len(tables) == 1 and lines == 2 + len(rows)
    for name in ("table", "tabular"):
        assert bare.count(rf"\begin{{{name}}}") == bare.count(rf"\end{{{name}}}")


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
