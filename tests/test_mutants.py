"""The list of wrong changes fits the code as it is, and the runner tells killed from survived."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("tomllib")  # the runner, like all of make, needs Python 3.11
ROOT = Path(__file__).resolve().parents[1]


def _runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "tools" / "mutants.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


mutants = _runner()


@pytest.mark.parametrize("mutant", mutants.load(), ids=lambda one: one.name)
def test_each_finds_its_place_and_its_tests(mutant: mutants.Mutant) -> None:
    mutant.apply((ROOT / mutant.file).read_text(encoding="utf-8"))
    for test in mutant.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"def {name.partition('[')[0]}(" in text, test


def test_there_are_enough() -> None:
    assert len(mutants.load()) >= 80


def tree(folder: Path, entries: str) -> list[str]:
    """A small tree with one module and its test, and arguments for the runner."""
    for name, text in {
        "src/one.py": "def double(x: int) -> int:\n    return 2 * x\n",
        "tests/test_one.py": (
            "from one import double\n\n\ndef test_double():\n    assert double(2) == 4\n"
        ),
        "lists/area.toml": entries,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return ["--root", str(folder), "--lists", str(folder / "lists"), "--jobs", "1", "--bare"]


def entry(name: str, old: str, new: str, test: str = "tests/test_one.py") -> str:
    return (
        f'[[mutant]]\nname = "{name}"\nfile = "src/one.py"\n'
        f'old = "{old}"\nnew = "{new}"\ntests = ["{test}"]\n'
    )


KILLED = entry("sum", "2 * x", "2 + x + 1")
SURVIVED = entry("square", "2 * x", "x * x")  # two times two is two squared
GONE = entry("gone", "3 * x", "x")
SYNTAX = entry("syntax", "2 * x", "2 *")
BROKEN = entry("broken", "def double", "def triple")  # the test cannot be imported: noticed
NAMED = entry("named", "2 * x", "x + 1", "tests/test_one.py::test_double")


def test_all_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = tree(tmp_path, KILLED + BROKEN + NAMED)
    before = (tmp_path / "src/one.py").read_text()
    assert mutants.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "3 of 3 killed, 0 survived, 0 stale" in printed
    assert "killed    area/sum" in printed and "tests/test_one.py::test_double" in printed
    assert (tmp_path / "src/one.py").read_text() == before
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_survivor_and_stale_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = tree(tmp_path, KILLED + SURVIVED + GONE + SYNTAX)
    assert mutants.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "1 of 4 killed, 1 survived, 2 stale" in printed
    assert "survived  area/square" in printed
    assert "stands 0 times" in printed and "no Python" in printed
    assert mutants.main([*arguments, "--only", "sum"]) == 0  # the others are not asked for


def test_tests_that_fail_by_themselves_show_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = tree(tmp_path, KILLED)
    (tmp_path / "src/one.py").write_text("def double(x: int) -> int:\n    return 2 * x + 1\n")
    assert mutants.main(arguments) == 2
    assert "fail without any change" in capsys.readouterr().out


def test_what_is_listed_and_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = tree(tmp_path, KILLED + SURVIVED)
    assert mutants.main([*arguments, "--list"]) == 0
    assert capsys.readouterr().out.split()[::2] == ["area/sum", "area/square"]
    with pytest.raises(SystemExit):
        mutants.main([*arguments, "--only", "nothing-of-that-name"])
    tree(tmp_path, KILLED + KILLED)
    with pytest.raises(ValueError, match="two mutants are called area/sum"):
        mutants.main(arguments)
    tree(tmp_path, KILLED.replace("old", "wrong"))
    with pytest.raises(ValueError, match="is no mutant"):
        mutants.main(arguments)
