"""The first pages that a user reads: what they print is what runs, and what comes out."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import Cli
from tests.support.pages import ROOT

PAGES = ("start", "how-it-works")


def text_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text("utf-8")


COMMANDS = [
    line.partition("  #")[0].strip()
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", text_of(page), flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("prunus ")
]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_prints_what_the_page_says(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text_of(page), re.DOTALL)
    assert len(found) == 1
    for code, expected in found:
        exec(compile(code, page, "exec"), {})
        printed = capsys.readouterr().out
        assert _without_flops(printed) == _without_flops(expected)


def _without_flops(text: str) -> list[str]:
    """Lines, without those whose numbers other changes may move a little."""
    return [line.rstrip() for line in text.strip().splitlines() if "FLOPs" not in line]


@pytest.mark.parametrize("command", [one for one in COMMANDS if "~" not in one])
def test_commands_run(
    command: str, cli: Cli, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "a.jpg"):
        shutil.copy(picture, name)
    line = {"image": "a.jpg", "question": "how many objects are there?", "answer": "two"}
    Path("mine.jsonl").write_text(json.dumps(line) + "\n")
    arguments = shlex.split(command.partition(" > ")[0])[1:]
    more = {"run": ["--max-new-tokens", 2], "compare": ["--no-time", "--workers", 1]}
    result = cli(*arguments, *more.get(arguments[0], []))
    assert result.code == 0, result.err
    if "--save-overlay" in arguments:
        assert Path("kept.png").stat().st_size
