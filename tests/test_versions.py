"""The tested range stands in one place, agrees with what is installed for tests, and is told."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import prunus
from prunus import versions
from prunus.errors import PrunusError
from tests.support.command_line import Cli
from tests.support.packages import constraints, dependencies

ROOT = Path(__file__).parents[1]


@pytest.fixture
def fresh() -> Iterator[None]:
    """As in a new process: nothing was said yet."""
    versions.check_transformers.cache_clear()
    yield
    versions.check_transformers.cache_clear()


def installed(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setattr(versions, "version", lambda _: number)


def test_the_range_is_what_the_files_say() -> None:
    assert constraints("constraints-lowest.txt")["transformers"] == versions.LOWEST
    assert dependencies()["transformers"] == versions.LOWEST
    assert constraints("constraints.txt")["transformers"] == versions.NEWEST


def test_the_readme_names_the_range() -> None:
    assert (
        f"transformers {versions.LOWEST} to {versions.NEWEST}" in (ROOT / "README.md").read_text()
    )


def test_no_other_file_of_the_package_names_the_range() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        if path.name != "versions.py":
            text = path.read_text()
            assert versions.LOWEST not in text and versions.NEWEST not in text, path


@pytest.mark.parametrize(
    "number", ["5.19.0", "5.21.3", versions.NEWEST, "5.24.7", "5.24.0.dev0", "5.24.0rc1"]
)
def test_tested_versions_are_not_spoken_of(number: str) -> None:
    assert versions.untested(number) is None


@pytest.mark.parametrize("number", ["5.25.0", "5.25.0.dev0", "5.100.0", "6.0", "10.1.2"])
def test_a_newer_one_is_told_in_one_line(number: str) -> None:
    line = versions.untested(number)
    assert line is not None and "\n" not in line
    for word in (versions.LOWEST, versions.NEWEST, number, "prunus check"):
        assert word in line


@pytest.mark.parametrize("number", ["5.18.9", "5.9.0", "4.57.1", "0.0"])
def test_an_older_one_is_refused(number: str) -> None:
    with pytest.raises(PrunusError, match=f"transformers {number}.*{versions.LOWEST} or newer"):
        versions.untested(number)


def test_it_is_told_once_whatever_is_used_first(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "5.99.0")
    for name in ("prune", "load"):
        monkeypatch.delitem(vars(prunus), name, raising=False)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert callable(prunus.prune)
        assert callable(prunus.load)
        prunus.load("tiny-llava")
    assert len([one for one in told if "5.99.0" in str(one.message)]) == 1


def test_an_old_one_is_refused_at_every_use(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "5.1.0")
    monkeypatch.delitem(vars(prunus), "prune", raising=False)
    for _ in range(2):
        with pytest.raises(PrunusError, match=r"5\.1\.0"):
            _ = prunus.prune
        with pytest.raises(PrunusError, match=r"5\.1\.0"):
            prunus.load("tiny-llava")


def test_the_command_line_tells_it_once_on_stderr(
    fresh: None, monkeypatch: pytest.MonkeyPatch, cli: Cli, tmp_path: Path
) -> None:
    from prunus.tasks.sample import load_sample

    installed(monkeypatch, "5.99.0")
    load_sample()[0].save(tmp_path / "sample.png")
    asked = ("run", tmp_path / "sample.png", "--prompt", "what is there?", "--max-new-tokens", 1)
    told = cli(*asked, "--json")
    assert told.code == 0 and told.json["answer"] is not None
    assert told.err.count("5.99.0") == 1 and told.err.startswith("warning: ")


def test_the_command_line_refuses_an_old_one(
    fresh: None, monkeypatch: pytest.MonkeyPatch, cli: Cli, tmp_path: Path
) -> None:
    from prunus.tasks.sample import load_sample

    installed(monkeypatch, "5.1.0")
    load_sample()[0].save(tmp_path / "sample.png")
    refused = cli("run", tmp_path / "sample.png", "--prompt", "what?")
    assert refused.code == 2 and refused.out == ""
    assert refused.err.startswith("error: transformers 5.1.0") and refused.err.count("\n") == 1


def test_importing_prunus_stays_light() -> None:
    code = "import prunus, sys; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
