"""What is stored comes back whole, or is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.compare.identity import digest
from prunus.compare.store import Given, Store
from prunus.errors import PrunusFileError

ABOUT: dict[str, Any] = {"model": {"weights": "w"}, "cell": {"keep": 1 / 9}, "set": "s"}
COST = {"average": 64.0, "per_layer": [576.0, 64.0], "kv": None}


def filled(place: Path) -> tuple[Store, Path]:
    store = Store(place)
    store.add(ABOUT, {"q1": Given("red", COST), "q2": Given("", None)})
    store.add(ABOUT, {"q3": Given("ü", COST)}, {"q4": "the least is 97"})
    [path] = (place / "answers").iterdir()
    return store, path


def test_answers_come_back(tmp_path: Path) -> None:
    filled(tmp_path / "store")
    again = Store(tmp_path / "store")
    known = again.known(ABOUT)
    assert known.given == {
        "q1": Given("red", COST), "q2": Given("", None), "q3": Given("ü", COST),
    }  # fmt: skip
    assert known.refused == {"q4": "the least is 97"} and not again.told
    other = {**ABOUT, "cell": {"keep": 0.2}}
    assert not again.known(other).given  # another budget is another column


def test_a_torn_line_is_told_and_dropped(tmp_path: Path) -> None:
    store, path = filled(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # without its end of line a line is whole all the same
    assert len(store.known(ABOUT).given) == 3 and path.read_bytes() == whole
    for cut in (2, 7, 40):  # a process that was killed, or a full disk
        path.write_bytes(whole[:-cut])
        store = Store(tmp_path)
        known = store.known(ABOUT)
        assert set(known.given) == {"q1", "q2"} and not known.refused
        assert "not whole" in store.told[0]
        store.add(ABOUT, {"q3": Given("blue", COST)})
        again = Store(tmp_path)
        assert again.known(ABOUT).given["q3"].text == "blue" and not again.told


def test_a_changed_line_is_told_and_dropped(tmp_path: Path) -> None:
    store, path = filled(tmp_path)
    path.write_text(path.read_text("utf-8").replace("red", "sad"), "utf-8")
    assert set(store.known(ABOUT).given) == {"q3"}
    assert "1 batches are not whole" in store.told[0]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    store, path = filled(tmp_path)
    head, *rest = path.read_text("utf-8").splitlines(keepends=True)
    changed = json.loads(head)
    changed["of"]["model"]["weights"] = "v"
    path.write_text(json.dumps(changed) + "\n" + "".join(rest), "utf-8")
    with pytest.raises(PrunusFileError, match="move it away"):
        store.known(ABOUT)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").touch()
    with pytest.raises(PrunusFileError, match="holiday"):
        Store(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["holiday.png"]


def test_another_format_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "store.json").write_text('{"what": "answers of prunus compare", "format": 0}')
    with pytest.raises(PrunusFileError, match="format"):
        Store(tmp_path)


def test_foreign_files_in_a_store_are_told(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert "notes.txt" in Store(tmp_path).told[0]


def test_single_values_are_checked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.read("times", {"a": 1}) is None
    store.write("times", {"a": 1}, {"own": [1.5, 2.0]})
    assert store.read("times", {"a": 1}) == {"own": [1.5, 2.0]}
    assert store.read("times", {"a": 2}) is None and not store.told
    [path] = (tmp_path / "times").iterdir()
    path.write_text(path.read_text("utf-8").replace("1.5", "1.0"), "utf-8")
    assert store.read("times", {"a": 1}) is None and "not whole" in store.told[0]


@pytest.mark.parametrize(
    "batch",
    [
        {"given": []},
        {"given": {"q3": ["red"]}},
        {"given": {"q3": ["red", 0]}, "costs": []},
        {"given": {"q3": [None, None]}},
        {"given": {}, "refused": {"q3": 1}},
        {"given": {"q3": ["red", -1]}, "costs": [{}]},
    ],
)
def test_a_line_of_another_form_is_told_and_dropped(tmp_path: Path, batch: dict[str, Any]) -> None:
    """Even if its check sum is right."""
    store, path = filled(tmp_path)
    with path.open("a") as file:
        file.write(json.dumps({"check": digest(batch)[:16], "batch": batch}) + "\n")
    assert set(store.known(ABOUT).given) == {"q1", "q2", "q3"}
    assert "1 batches are not whole" in store.told[0]
