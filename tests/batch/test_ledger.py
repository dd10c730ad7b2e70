"""The folder of a run: every row once, whenever the run was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.batch.ledger import FORMATS, Format, Ledger, finish, settle
from prunus.errors import PrunusError, PrunusFileError, PrunusStateError
from tests.support.damage import damaged


def answer(number: int) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "number": number,
        "answer": "ja, „so“\n",
        "new_tokens": 2,
        "visual_tokens": 576,
        "kept": 64,
        "average": 106.5,
    }


def refusal(number: int) -> dict[str, Any]:
    return {"id": f"r{number}", "number": number, "reason": "weil"}


def rows_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    """All answers, part by part."""
    found: list[dict[str, Any]] = []
    for part in sorted(folder.glob(f"answers-*.{kind}")):
        if kind == "jsonl":
            found += [json.loads(line) for line in part.read_text("utf-8").splitlines()]
        else:
            from pyarrow import parquet

            found += parquet.read_table(part).to_pylist()
    return found


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_is_known_and_not_written_again(tmp_path: Path, kind: Format) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    first = Ledger(tmp_path, kind, part_rows=4)
    first.take([answer(1), refusal(2), answer(3)])
    assert not list(tmp_path.iterdir())  # not enough of them yet
    first.take([answer(4), answer(3), answer(2)])
    assert rows_of(tmp_path, kind) == [answer(1), answer(3), answer(4)]
    first.take([answer(5)])  # a run that is killed here has lost this one
    second = Ledger(tmp_path, kind, part_rows=2)
    assert second.answered == {"r1", "r3", "r4"} and second.refused == {"r2"}
    second.take([answer(4), answer(5), answer(2), refusal(6)])
    second.flush()
    assert [row["id"] for row in rows_of(tmp_path, kind)] == ["r1", "r3", "r4", "r5"]
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert refused == [refusal(2), refusal(6)]
    second.ask_refused_again()
    second.take([answer(2)])
    second.flush()
    third = Ledger(tmp_path, kind, part_rows=2)
    assert third.done == {"r1", "r2", "r3", "r4", "r5"} and not third.refused


def test_parts_are_written_after_a_while(tmp_path: Path) -> None:
    now = [0.0]
    ledger = Ledger(tmp_path, "jsonl", 1000, clock=lambda: now[0])
    ledger.take([answer(1)])
    assert not rows_of(tmp_path, "jsonl")
    now[0] = 31
    ledger.take([answer(2)])
    assert len(rows_of(tmp_path, "jsonl")) == 2


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "jsonl", 1)
    ledger.take([refusal(1)])
    with (tmp_path / "refused.jsonl").open("a") as file:
        file.write('{"id": "r2", "rea')
    again = Ledger(tmp_path, "jsonl", 1)
    assert again.refused == {"r1"}
    again.take([refusal(2)])
    assert Ledger(tmp_path, "jsonl", 1).refused == {"r1", "r2"}


def test_other_settings_are_refused(tmp_path: Path) -> None:
    settle(tmp_path, {"method": "clse", "keep": "32"})  # that run came to nothing
    settle(tmp_path, {"method": "clse", "keep": "64", "params": ("a=1",)})
    Ledger(tmp_path, "jsonl", 1).take([answer(1)])
    finish(tmp_path, {"now": 3})
    settle(tmp_path, {"method": "clse", "keep": "64", "params": ("a=1",)})
    finish(tmp_path, {"now": 4})
    assert [run["now"] for run in json.loads((tmp_path / "batch.json").read_text())["runs"]] == [
        3,
        4,
    ]
    with pytest.raises(PrunusStateError, match="keep '64', now '32'"):
        settle(tmp_path, {"method": "clse", "keep": "32", "params": ("a=1",)})
    (tmp_path / "batch.json").unlink()
    with pytest.raises(PrunusStateError, match=r"no batch\.json"):
        settle(tmp_path, {})


def test_whatever_is_wrong_in_the_folder_is_refused_with_its_file(tmp_path: Path) -> None:
    """Never another exception: a row that is not known would be asked twice."""
    settings = {"model": "m", "keep": "64"}
    settle(tmp_path, settings)
    ledger = Ledger(tmp_path, "jsonl", 1)
    ledger.take([answer(1)])
    ledger.take([refusal(2)])
    finish(tmp_path, {"rows": 2})
    for name in ("answers-000000.jsonl", "refused.jsonl", "batch.json"):
        path = tmp_path / name
        before = path.read_text("utf-8")
        for what, one in damaged(json.loads(before)):
            path.write_text(f"{json.dumps(one)}\n", "utf-8")
            told, again = "", None
            try:
                settle(tmp_path, settings)
                again = Ledger(tmp_path, "jsonl", 1)
                finish(tmp_path, {})
            except PrunusError as error:
                told = str(error)
            if again is None:
                assert name in told or "other settings" in told, what
            else:
                assert what == "id: 'x'" or again.done == {"r1", "r2"}, what
        path.write_text(before, "utf-8")
    (tmp_path / "answers-000001.jsonl").write_text("[]\n")
    with pytest.raises(PrunusFileError, match=r"answers-000001.jsonl.* damaged.*move it away"):
        Ledger(tmp_path, "jsonl", 1)


def test_parquet_of_something_else_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for column in ({"name": ["r1"]}, {"id": [1]}, {"id": ["r1", None]}):
        parquet.write_table(pyarrow.table(column), str(tmp_path / "answers-000000.parquet"))
        with pytest.raises(PrunusFileError, match=r"answers-000000.parquet.*move it away"):
            Ledger(tmp_path, "parquet", 1)
    (tmp_path / "answers-000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(PrunusFileError, match="answers-000000.parquet"):
        Ledger(tmp_path, "parquet", 1)
