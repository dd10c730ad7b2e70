"""make test-all goes on where it ended, and begins again where anything changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
THREE = """
import os, pathlib

def note(name):
    with open(pathlib.Path(__file__).parents[1] / "ran.txt", "a") as file:
        file.write(name)

def test_a():
    note("a")

def test_b():
    note("b")
    assert os.environ["B"] == "right"

def test_c():
    note("c")
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of git with three tests, which write down that they ran where git does not look."""
    root = tmp_path / "tree"
    (root / "tests").mkdir(parents=True)
    (root / "tests" / "test_three.py").write_text(THREE)
    (root / ".gitignore").write_text("/out/\n/ran.txt\n__pycache__/\n")
    (root / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def ran(root: Path, *options: str, b: str = "right") -> tuple[str, int, str]:
    """Which tests ran, pytest's exit code and what it printed."""
    note = root / "ran.txt"
    note.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tools.resume", "-p", "no:cacheprovider", *options],
        cwd=root,
        env={**os.environ, "B": b, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    names = "".join(sorted(note.read_text())) if note.exists() else ""
    return names, done.returncode, done.stdout + done.stderr


def test_what_passed_is_not_run_again_until_something_changes(tree: Path) -> None:
    assert ran(tree, b="wrong")[:2] == ("abc", 1)
    names, code, printed = ran(tree, b="wrong")
    assert (names, code) == ("b", 1) and "2 tests passed before" in printed
    assert ran(tree)[:2] == ("b", 0)
    names, code, printed = ran(tree)
    assert (names, code) == ("", 0) and "3 tests passed before" in printed
    assert ran(tree, "--fresh")[:2] == ("abc", 0)
    (tree / "data.txt").write_text("a file that git would track")
    assert ran(tree)[:2] == ("abc", 0)


def test_in_several_processes(tree: Path) -> None:
    pytest.importorskip("xdist")
    assert ran(tree, "-n", "2", b="wrong")[:2] == ("abc", 1)
    assert ran(tree, "-n", "2")[:2] == ("b", 0)
    assert ran(tree, "-n", "2")[:2] == ("", 0)


def test_a_change_during_the_run_forgets_what_passed(tree: Path) -> None:
    test = tree / "tests" / "test_three.py"
    test.write_text(THREE + "    (pathlib.Path(__file__).parent / 'new.txt').touch()\n")
    names, code, printed = ran(tree)
    assert (names, code) == ("abc", 0) and "files changed meanwhile" in printed
    (tree / "tests" / "new.txt").unlink()
    assert ran(tree)[:2] == ("abc", 0)


def test_a_line_that_was_cut_off_does_not_count(tree: Path) -> None:
    assert ran(tree)[:2] == ("abc", 0)
    [log] = (tree / "out" / "tests-passed").iterdir()
    log.write_text(log.read_text()[:-1])
    names, code, _ = ran(tree)
    assert (len(names), code) == (1, 0)


def test_without_git_it_says_so(tmp_path: Path) -> None:
    _, code, printed = ran(tmp_path)
    assert code == pytest.ExitCode.USAGE_ERROR and "need git" in printed
