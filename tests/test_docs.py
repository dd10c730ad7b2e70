"""What the README prints is what runs, and links lead somewhere.

The pages on methods and families have tests of their own: tests/test_guide.py and
tests/families/test_page.py. Files and functions that pages name: tests/test_walk.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Cli
from tests.support.pages import ROOT, blocks

COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("prunus ")
]
LONG = ("train", "eval", "analyse", "calibrate", "check", "bench", "compare", "tune", "web")


def test_the_ten_lines_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks("README.md")[0], "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "576 -> 64 at the last layer" in printed
    assert len(names["run"].trace[0].kept[0][0]) == 64
    (true,) = (code for code in blocks("README.md") if 'budget="true"' in code)
    exec(compile(true, "README.md", "exec"), names)
    assert capsys.readouterr().out.strip() in true


def test_the_other_python_blocks_compile() -> None:
    for page in sorted((ROOT / "docs").glob("*.md")):
        for code in blocks(f"docs/{page.name}"):
            compile(code, page.name, "exec")
    for code in blocks("README.md"):
        compile(code, "README.md", "exec")


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.split()[1] not in LONG and "~" not in c]
)
def test_short_commands_of_the_readme_run(
    command: str, cli: Cli, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        shutil.copy(picture, name)
    arguments = shlex.split(command)[1:]
    result = cli(*arguments, *(["--max-new-tokens", 2] if arguments[0] == "run" else []))
    assert result.code == 0, result.err
    for at, argument in enumerate(arguments):
        if argument == "--save-overlay":
            assert Path(arguments[at + 1]).stat().st_size


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_have_these_options(command: str, cli: Cli) -> None:
    arguments = shlex.split(command)[1:]
    words = [a for a in arguments[:2] if re.fullmatch(r"[a-z]+", a)]
    known = cli(*words[: 2 if words[0] in ("train", "calibrate") else 1], "--help").out
    assert [a for a in arguments if a.startswith("--") and a not in known] == []


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page if (ROOT / page).is_file() else ROOT / "docs" / page
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", path.read_text()):
        found = path.parent / target if target else path
        assert found.exists(), f"{page} links to {target}, which does not exist"
        if anchor and found.suffix != ".png":  # of pictures it says in which light they are shown
            assert anchor in anchors(found), f"{page} links to {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """What GitHub makes of headings."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
