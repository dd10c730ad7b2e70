"""The house has no circles, and the tool that says so sees one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("imports", ROOT / "tools" / "imports.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["imports"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


imports = _tool()

#: A package of two rooms and a root that is above them.
CLEAN = {
    "__init__.py": "from house.top.one import f\n",
    "low.py": "import json\n",
    "top/__init__.py": "'''A room.'''\n",
    "top/one.py": "from house.low import x\nfrom house.top import two\n" + "y = 1\n" * 30,
    "top/two.py": "from .. import low\n",
}
ORDER = ("low", "top", "__init__")


def faults(folder: Path, files: dict[str, str], order: tuple[str, ...] = ORDER) -> list[str]:
    for name, text in {**CLEAN, **files}.items():
        path = folder / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    found: list[str] = imports.faults(imports.read(folder / "house"), order)
    return found


def test_nothing_of_prunus_imports_upwards_or_in_circles() -> None:
    assert imports.faults(imports.read(imports.PACKAGE)) == []
    assert imports.main() == 0


def test_a_clean_house_is_read_as_it_is(tmp_path: Path) -> None:
    assert faults(tmp_path, {}) == []
    house = imports.read(tmp_path / "house")
    assert house.modules["top.one"] == {"low", "top.two"}
    assert house.modules["top.two"] == {"low"}
    assert house.rooms == {"__init__": {"top"}, "low": set(), "top": {"low"}}


@pytest.mark.parametrize(
    "hidden",
    [
        "def f():\n    from house.top import one\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.top.one\n",
        "from . import one\n",
    ],
)
def test_a_circle_of_modules(tmp_path: Path, hidden: str) -> None:
    assert faults(tmp_path, {"top/two.py": hidden}) == [
        "modules import each other: top.one, top.two"
    ]


def test_a_circle_of_rooms(tmp_path: Path) -> None:
    assert faults(tmp_path, {"low.py": "def f():\n    import house.top.two as t\n"}) == [
        "modules import each other: low, top.two",
        "rooms import each other: low, top",
        "low imports top.two, which is above it",
    ]


def test_an_import_upwards_that_closes_no_circle(tmp_path: Path) -> None:
    order = ("top", "low", "__init__")
    found = faults(tmp_path, {"top/two.py": ""}, order)
    assert found == ["top.one imports low, which is above it"]


def test_rooms_that_are_new_gone_or_small(tmp_path: Path) -> None:
    found = faults(tmp_path, {"new.py": "", "top/one.py": ""}, (*ORDER, "old"))
    assert found == [
        "room new has no place in ORDER",
        "ORDER names old, which is gone",
        "room top has 2 lines: fold it into a neighbour",
    ]
