"""What papers printed: the files say what they should, and ours stands beside it."""

from __future__ import annotations

from typing import Any

import pytest

from prunus.bench.clock import ratios
from prunus.bench.measure import methods_named
from prunus.bench.papers import beside, check_paper, papers
from prunus.bench.presets import PRESETS
from prunus.bench.shapes import SHAPES
from prunus.bench.splits import PARTS
from prunus.bench.table import PAPER_COLUMNS, paper_lines
from prunus.compare.published import published_tables
from prunus.errors import PrunusError


def test_numbers_are_those_of_the_tables_that_comparisons_show() -> None:
    known = {table["id"]: table for table in published_tables()}
    seen = 0
    for table in papers().values():
        if table["id"] not in known:
            continue
        other = known[table["id"]]
        rows = {row["method"]: row["values"] for row in other["rows"]} | {"dense": other["dense"]}
        for name, values in [("dense", table["dense"])] + [
            (row["method"], row["values"]) for row in table["rows"]
        ]:
            for column, value in values.items():
                assert rows[name][column] == value, (table["id"], name)
                seen += 1
    assert seen > 15


def test_a_figure_in_two_parts_is_that_of_comparisons() -> None:
    """Which has the tower and what is behind it apart, in tens of milliseconds."""
    (figure,) = (table for table in published_tables() if table["id"] == "evoprune-figure-3")
    ours = papers()["evoprune-video"]
    rows = {row["method"]: row["values"] for row in ours["rows"]} | {"dense": ours["dense"]}
    parts = {row["method"]: row["values"] for row in figure["rows"]} | {"dense": figure["dense"]}
    assert rows.keys() == parts.keys()
    for name, values in rows.items():
        whole = parts[name]
        before = 10 * (whole["encoder"] + whole["other"])
        assert values["before the LLM ms"] == before, name
        assert values["LLM ms"] == 10 * whole["LLM"], name


def test_printed_speed_ups_follow_from_printed_times() -> None:
    times = papers()["clse-5-image"]
    speed = [times["dense"]["prefill ms"] / row["values"]["prefill ms"] for row in times["rows"]]
    assert [round(one, 2) for one in speed] == [1.69, 1.31, 1.27, 1.51]
    table = papers()["stepwise-3"]
    assert round(149.5 / table["rows"][2]["values"]["latency ms"], 2) == 1.88


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_what_there_is(name: str) -> None:
    preset = PRESETS[name]
    assert preset.shape in SHAPES
    for method in preset.methods:
        assert methods_named(method, preset.keep)
    for table in preset.published:
        ours = {row["ours"] for row in papers()[table]["rows"]} - {None}
        assert ours <= set(preset.methods)


def row(name: str, parts: list[dict[str, float]], kv: float) -> dict[str, Any]:
    whole = [dict.fromkeys(PARTS, 0.0) | one for one in parts]
    stamps = [[sum(one.values()), 2 * sum(one.values()) + 1] for one in whole]
    rounds = {"parts": whole, "stamps": stamps}
    return {"name": name, "refused": None, "rounds": rounds, "kv_bytes": {"measured": kv}}


def test_each_column_is_compared_with_what_it_holds() -> None:
    dense = [{"tower": 5.0, "prefill": 40.0, "generate": 10.0}, {"tower": 1.0, "prefill": 8.0}]
    own = [{"tower": 5.0, "choosing": 2.0, "prefill": 18.0, "generate": 5.0}] * 2
    case: Any = {"rows": [row("dense", dense, 8.0), row("divprune", own, 2.0)]}
    columns = {"a": "language", "b": "before", "c": "inside", "d": "first", "e": "answer"}
    table = {
        **dict.fromkeys(("id", "title", "source", "protocol"), "x"),
        "flags": [],
        "columns": columns | {"f": "kv"},
        "dense": dict.fromkeys("abcdef", 4.0),
        "rows": [
            {"method": "DivPrune", "ours": "divprune", "values": dict.fromkeys("abcdef", 1.0)},
            {"method": "DART", "ours": None, "values": dict.fromkeys("abcdef", 1.0)},
        ],
    }
    found = beside(check_paper(table, "x.json"), case)
    ours = {line["column"]: line["ours"] for line in found["lines"] if line["name"]}
    assert ours["a"] == list(ratios([25, 25], [50, 8]))
    assert ours["b"] == list(ratios([7, 7], [5, 1]))
    assert ours["c"] == list(ratios([23, 23], [50, 8]))
    assert ours["d"] == list(ratios([30, 30], [55, 9]))
    assert ours["e"] == list(ratios([61, 61], [111, 19]))
    assert ours["f"] == [0.25] * 3
    assert {line["printed"] for line in found["lines"]} == {0.25}
    cells = paper_lines(found)
    assert len(cells) == 12 and all(len(one) == len(PAPER_COLUMNS) for one in cells)
    assert cells[-1] == ["DART", "f", "1 / 4", "0.250", "-"]


@pytest.mark.parametrize(
    "change", [{"flags": None, "more": 1}, {"columns": {"a": "speed"}}, {"dense": {"a": 0}}]
)
def test_a_file_that_is_wrong_is_named(change: dict[str, Any]) -> None:
    table = papers()["visipruner-request"] | change
    with pytest.raises(PrunusError, match=r"x\.json"):
        check_paper(table, "x.json")
