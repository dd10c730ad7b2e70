"""Published tables hold what they say, and what is wrong with them can be recomputed."""

import copy
import re
from typing import Any

import pytest

from prunus.compare.contract import PublishedRow, PublishedTable
from prunus.compare.published import check_table, published_tables
from prunus.errors import PrunusError

TABLES = {table["id"]: table for table in published_tables()}
PRINTED = "average printed"
WRONG = re.compile(r"the average does not follow from its cells: ([\d.]+)")

#: Tables whose average is of scores over those of the dense model, and what is beside the scores.
RELATIVE = (
    "clse-1",
    "clse-2",
    "clse-3",
    "clse-9",
    "clse-10",
    "clse-11",
    "stepwise-1",
    "stepwise-2",
)
#: Tables whose average is of the scores, perception over 20.
PLAIN = [
    name
    for name, table in TABLES.items()
    if name.startswith("visipruner") and PRINTED in table["benchmarks"]
]


def relative(table: PublishedTable, row: PublishedRow) -> float:
    total, count = 0.0, 0
    for name in table["benchmarks"]:
        value, dense = row["values"][name], table["dense"][name]
        if name != PRINTED and value is not None and dense is not None:
            total += value / dense
            count += 1
    return 100 * total / count


def mean(table: PublishedTable, values: dict[str, float | None]) -> float:
    scores = []
    for name in table["benchmarks"]:
        value = values[name]
        if name not in (PRINTED, "TFLOPs", "visual attention saved %") and value is not None:
            scores.append(value / 20 if name == "MME-P" else value)
    return sum(scores) / len(scores)


def said(flags: list[str]) -> float | None:
    found = [float(match[1]) for flag in flags if (match := WRONG.search(flag))]
    return found[0] if found else None


def check(printed: float, again: float, flags: list[str], tolerance: float = 0.12) -> None:
    """An average follows from its cells, or it is flagged with what does."""
    wrong = said(flags)
    if wrong is None:
        assert again == pytest.approx(printed, abs=tolerance)
    else:
        assert again == pytest.approx(wrong, abs=0.06) and abs(wrong - printed) > 0.05


@pytest.mark.parametrize("name", RELATIVE)
def test_relative_averages_follow_or_are_flagged(name: str) -> None:
    table = TABLES[name]
    for row in table["rows"]:
        printed = row["values"][PRINTED]
        assert printed is not None
        check(printed, relative(table, row), row["flags"])


@pytest.mark.parametrize("name", PLAIN)
def test_plain_averages_follow_or_are_flagged(name: str) -> None:
    table = TABLES[name]
    printed = table["dense"][PRINTED]
    assert printed is not None
    check(printed, mean(table, dict(table["dense"])), table["flags"])
    for row in table["rows"]:
        printed = row["values"][PRINTED]
        assert printed is not None
        check(printed, mean(table, row["values"]), row["flags"])


def test_some_averages_are_flagged() -> None:
    """The two of ToMe that are furthest off, among others."""
    found = {
        (name, row["method"], row["budget"]): (row["values"][PRINTED], wrong)
        for name, table in TABLES.items()
        for row in table["rows"]
        if (wrong := said(row["flags"])) is not None
    }
    assert found["clse-1", "ToMe", 192] == (84.8, 89.9)
    assert found["clse-1", "ToMe", 64] == (67.4, 75.6)
    assert found["stepwise-1", "FastV", 64] == (76.8, 73.6) and len(found) > 10


def test_the_accuracy_of_evoprune_is_five_terms_over_four() -> None:
    table = TABLES["evoprune-1"]
    dense = dict(table["dense"])

    def terms(values: dict[str, Any]) -> float:
        four = sum(values[name] for name in ("VQAv2", "MMB", "MMB-CN", "MMVet"))
        return float(four + values["MME-P"] / 20)

    for row in table["rows"]:
        printed = row["values"]["accuracy printed"]
        assert terms(row["values"]) / 4 == pytest.approx(printed, abs=0.35)
        ratio = 100 * terms(row["values"]) / terms(dense)
        assert ratio == pytest.approx(row["values"][PRINTED], abs=0.5)


def test_columns_that_were_shifted() -> None:
    """Where VQAv2 was left out, values of CLSE's table stand one column to the left."""
    theirs = {
        (row["method"], row["budget"]): row["values"] for row in TABLES["llava-1.5-7b"]["rows"]
    }
    shifted = [row for row in TABLES["clse-1"]["rows"] if "column shift" in " ".join(row["flags"])]
    assert [(row["method"], row["budget"]) for row in shifted] == [("ToMe", 192), ("FastV", 192)]
    for row in shifted:
        right = theirs[row["method"], row["budget"]]
        assert row["values"]["GQA"] == right["GQA"] and row["values"]["MME"] == right["MME"]
        # under POPE stands SQA, under SQA stands VQAv2 (to a digit)
        assert row["values"]["POPE"] == pytest.approx(right["SQA"], abs=0.1)
        assert row["values"]["SQA"] == pytest.approx(right["VQAv2"], abs=0.1)


def test_the_cache_of_clse_is_that_of_64_tokens() -> None:
    table = TABLES["clse-5-image"]
    [ours] = [row for row in table["rows"] if row["method"] == "CLSE"]
    megabytes = 32 * 4096 * 2 * 2 / 2**20  # of one token: keys and values, half precision
    assert megabytes == 0.5 and ours["values"]["KV MB"] == 56.0 == 112 * megabytes
    assert "112 tokens" in ours["flags"][0] and ours["budget"] == 192


def test_a_row_that_was_printed_twice() -> None:
    rows = {(row["method"], row["budget"]): row for row in TABLES["evoprune-2"]["rows"]}
    assert rows["VisPruner", 64]["values"] == rows["FasterVLM", 64]["values"]
    assert "to the digit" in rows["VisPruner", 64]["flags"][0]


def test_perception_alone_stands_apart() -> None:
    for table in TABLES.values():
        for row in table["rows"]:
            for name, most in (("MME-P", 2000), ("MME", 2800)):
                assert (row["values"].get(name) or 0) <= most
            if (alone := row["values"].get("MME-P")) is not None:
                assert alone < 1800
            if table["model"] == "LLaVA-1.5-7B" and (both := row["values"].get("MME")):
                assert both > 1000
    both = [row for row in TABLES["llava-1.5-7b"]["rows"] if row["values"]["MME-P"] is not None]
    assert {row["source"] for row in both} == {"SPARE (2606.18681) Table 1"}
    assert all("perception only" in " ".join(row["flags"]) for row in both)


def test_two_splits_of_vizwiz_are_two_columns() -> None:
    table = TABLES["llava-1.5-7b"]
    for row in table["rows"]:
        if row["source"].startswith(("CLSE", "PriorTR")):
            assert row["values"]["VizWiz (dense 54.3)"] is None
    assert table["dense"]["VizWiz (dense 50.0)"] == 50.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.pop("source"), "a table has"),
        (lambda table: table.update(model=""), "model must be a text"),
        (lambda table: table["rows"][0].pop("flags"), "row 1: a row has"),
        (lambda table: table["rows"][1]["values"].pop("GQA"), "row 2: one value or null"),
        (lambda table: table["rows"][1]["values"].update(GQA="61"), "row 2: GQA must be a number"),
        (lambda table: table["rows"][0].update(budget=True), "the budget is a number"),
        (lambda table: table["rows"].append(table["rows"][0]), "stands there twice"),
        (lambda table: table["dense"].update(What=3), "by benchmark"),
    ],
)
def test_tables_are_checked(change: Any, words: str) -> None:
    table: Any = copy.deepcopy(TABLES["clse-1"])
    assert check_table(table, "a.json") == TABLES["clse-1"]
    change(table)
    with pytest.raises(PrunusError, match=words) as error:
        check_table(table, "a.json")
    assert str(error.value).startswith("a.json")
