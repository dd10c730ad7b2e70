"""Rows of a file: where they are, what their ids are, and what they ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.batch.rows import Asked, Reader, scan
from prunus.errors import PrunusError, PrunusFileError


def read_all(path: Path) -> list[tuple[str, Any]]:
    reader = Reader(path)
    return [(ref.id, reader.read(ref)) for ref in reversed(scan(path).refs)][::-1]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_lines_are_found_wherever_they_begin(tmp_path: Path, start: bytes, end: bytes) -> None:
    path = tmp_path / "data.jsonl"
    rows = [
        {"image": "a.png", "prompt": "wo sind die größten? \u2028 hier"},
        {"id": "x", "images": ["a.png", "/b.png"], "question": "which ?"},
        {"id": 9, "video": "builtin:3", "prompt": "what ?"},
    ]
    texts = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.write_bytes(start + texts[0] + end + end + texts[1] + end + texts[2])
    assert read_all(path) == [
        ("1", Asked(rows[0]["prompt"], [tmp_path / "a.png"], [])),
        ("x", Asked("which ?", [tmp_path / "a.png", Path("/b.png")], [])),
        ("9", Asked("what ?", [], [Path("builtin:3")])),
    ]
    assert scan(path).digest is not None


def test_bad_rows_are_told_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"id": "a", "image": "1.png", "prompt": "?"}\n{"id": "b", \n[1]\n'
        '{"id": 1.5, "image": "1.png", "prompt": "?"}\n{"id": "a", "image": "2.png"}\n'
    )
    rows = scan(path)
    assert [ref.id for ref in rows.refs] == ["a"] and rows.digest is None
    reasons = {bad.id: bad.reason for bad in rows.bad}
    assert "data.jsonl, line 2 is no JSON" in reasons["2"]
    assert "line 3: expected an object" in reasons["3"]
    assert "1.5 is neither text nor whole number" in reasons["4"]
    assert "line 5: the id 'a' is that of row 1, too" in reasons["a (row 5)"]


def test_bad_rows_never_take_the_id_of_a_good_one(tmp_path: Path) -> None:
    """Wherever it stands: what has an id is answered, and every id is there once."""
    path = tmp_path / "data.jsonl"
    good = [{"id": name, "image": "1.png", "prompt": "?"} for name in ("2", 3, "a (row 6)", "a")]
    lines = [good[0], "broken", 5, good[1], good[3], good[3], good[2], {**good[0], "id": 1.5}]
    path.write_text("".join(f"{one if one == 'broken' else json.dumps(one)}\n" for one in lines))
    rows = scan(path)
    assert [ref.id for ref in rows.refs] == ["2", "3", "a", "a (row 6)"]
    assert [bad.number for bad in rows.bad] == [2, 3, 6, 8]
    assert [bad.id for bad in rows.bad] == ["2 (row 2)", "3 (row 3)", "a (row 6) (row 6)", "8"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "a.png"}, "one text, called prompt or question"),
        ({"image": "a.png", "prompt": "?", "question": "?"}, "one text"),
        ({"image": "a.png", "prompt": 3}, "one text"),
        ({"prompt": "?"}, "nothing to look at"),
        ({"image": [], "prompt": "?"}, "nothing to look at"),
        ({"image": 3, "prompt": "?"}, "name of a file as image, not 3"),
        ({"image": "a.png", "images": ["a.png"], "prompt": "?"}, "both image and images"),
        ({"videos": [None], "prompt": "?"}, "name of a file as video"),
    ],
)
def test_what_a_row_lacks(tmp_path: Path, row: Any, reason: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(PrunusError, match=r"data.jsonl, line 1: ") as error:
        Reader(path).read(scan(path).refs[0])
    assert reason in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(PrunusFileError, match="cannot read the rows"):
        scan(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(PrunusError, match="holds no rows"):
        scan(tmp_path / "empty.jsonl")


def test_parquet_in_several_groups(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "data.parquet"
    table = {
        "id": [f"r{n}" for n in range(7)],
        "prompt": [f"{n} ?" for n in range(7)],
        "image": [{"bytes": b"x" * n, "path": None} if n % 2 else None for n in range(7)],
        "images": [None if n % 2 else ["a.png"] for n in range(7)],
    }
    parquet.write_table(pyarrow.table(table), path, row_group_size=3)
    found = read_all(path)
    assert [name for name, _ in found] == table["id"]
    assert found[3][1] == Asked("3 ?", [b"xxx"], []) == read_one(path, 3)
    assert found[6][1] == Asked("6 ?", [tmp_path / "a.png"], [])
    parquet.write_table(pyarrow.table({"image": ["a.png"], "text": ["?"]}), path)
    with pytest.raises(PrunusError, match="image, text, and none called prompt"):
        scan(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(PrunusFileError, match="cannot read the rows"):
        scan(path)


def test_parquet_that_is_damaged(tmp_path: Path) -> None:
    """Texts that are none belong to their row; broken pages are said, whoever meets them."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def texts(*found: bytes) -> Any:
        return pyarrow.array(found).cast(pyarrow.string(), safe=False)

    path = tmp_path / "data.parquet"
    image = ["a.png"] * 3
    table = {"id": texts(b"a", b"\xff", b"c"), "prompt": texts(b"?", b"?", b"\xfe"), "image": image}
    parquet.write_table(pyarrow.table(table), path, compression="NONE")
    rows = scan(path)
    assert [ref.id for ref in rows.refs] == ["a", "c"]
    assert [bad.reason.partition(" is")[0] for bad in rows.bad] == ["data.parquet, row 2: its id"]
    assert read_one(path, 0) == Asked("?", [tmp_path / "a.png"], [])
    with pytest.raises(PrunusError, match="data.parquet, row 3 holds a text that is no UTF-8"):
        read_one(path, 1)
    whole = path.read_bytes()
    reader, ref = Reader(path), rows.refs[0]
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # what is behind is the footer
    path.write_bytes(whole[:4] + bytes(pages - 4) + whole[pages:])
    for broken in (lambda: scan(path), lambda: reader.read(ref)):
        with pytest.raises(PrunusFileError, match="cannot read the rows in"):
            broken()
    names = ["prompt", "prompt", "image"]
    columns = [pyarrow.array(["a"]), pyarrow.array(["b"]), pyarrow.array(["a.png"])]
    parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), path)
    with pytest.raises(PrunusError, match="two columns called prompt"):
        scan(path)


def read_one(path: Path, at: int) -> Asked:
    return Reader(path).read(scan(path).refs[at])
