"""What stands around the code: versions, extras, data that ships, forms, and the face of it all."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import prunus

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
EXTRAS = set(
    re.findall(
        r"^(\w+) = \[",
        PROJECT.partition("[project.optional-dependencies]")[2].partition("\n[project")[0],
        re.MULTILINE,
    )
)


def test_the_version_is_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == prunus.__version__
    assert f'\nversion = "{prunus.__version__}"\n' in PROJECT
    assert citation["license"] in PROJECT


def test_the_readme_is_short_and_names_every_extra() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 210
    assert text.index("pip install prunus") < text.index("make ")
    table = text[text.index("| extra |") : text.index("For developers")]
    named = {
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert named == EXTRAS


def test_what_errors_tell_to_install_is_there() -> None:
    """Extras that messages and pages name exist."""
    pages = [*(ROOT / "src").rglob("*.py"), ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        (path.relative_to(ROOT).as_posix(), extra)
        for path in pages
        for found in re.findall(r"prunus\[([\w,]+)\]", path.read_text("utf-8"))
        for extra in found.split(",")
    }
    assert len(named) > 10
    assert [one for one in sorted(named) if one[1] not in EXTRAS] == []


def test_no_message_sends_a_user_to_make() -> None:
    """Who installed with pip has no Makefile: where it is named, there is another way as well."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text("utf-8")
        for found in re.finditer(r"`make [\w-]+`", text):
            around = text[max(0, found.start() - 300) : found.end()]
            assert "pip install" in around, (path, found[0])


def test_data_that_ships_has_an_origin_and_a_licence() -> None:
    page = (ROOT / "docs" / "files.md").read_text("utf-8").partition("## Data that ships")[2]
    rows = re.findall(r"^\| (`.*?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    places = [name for names, *_ in rows for name in re.findall(r"`(.*?)`", names)]
    assert "tasks/data/digits.npz" in places
    listed = subprocess.run(
        ["git", "ls-files", "src/prunus"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a repository")
    shipped = [line.removeprefix("src/prunus/") for line in listed.stdout.splitlines()]
    data = [one for one in shipped if not one.endswith((".py", "py.typed"))]
    assert len(data) > 50
    starts = tuple(place.rstrip("*") for place in places)
    unsaid = [one for one in data if not one.startswith(starts)]
    assert unsaid == []


def test_the_forms_can_be_read() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [one.stem for one in forms] == ["bug", "config", "method", "model"]
    for form in forms:
        read = yaml.safe_load(form.read_text("utf-8"))
        if form.stem != "config":
            assert read["name"] and read["description"]
            assert all({"type", "attributes"} <= set(part) for part in read["body"])
    assert "--report" in forms[0].read_text("utf-8")


def test_what_is_to_be_released_exists() -> None:
    """Targets of make in the list for releases are there."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    told = set(re.findall(r"\bmake ([\w-]+)", (ROOT / "docs" / "release.md").read_text("utf-8")))
    assert {"test-all", "test-docs"} <= told
    assert [one for one in told if not re.search(rf"^{one}:", makefile, re.MULTILINE)] == []
