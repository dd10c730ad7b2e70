"""From the controls of the page to a method, and back to what a person can paste."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from prunus.errors import PrunusError
from prunus.web.code import command, python
from prunus.web.desk import Desk
from prunus.web.setting import Setting, hint, share, takes_keep
from prunus.web.source import Source
from tests.support.command_line import Cli
from tests.web.conftest import ABOUT_CLIP, CLIP, QUESTION, SCENE

#: As the controls have it: method, percent, parameters, exact average.
TYPED: list[tuple[str, float, str, bool]] = [
    ("clse", 11, "", False),
    ("clse", 100, "", False),
    ("clse@hybrid", 20, "variant=paper cutoff=0.3", False),
    ("clse-released", 20, "", False),
    ("clse:cutoff=0.2", 12.5, "", False),
    ("fastv@192", 30, "", False),
    ("divprune", 11, "keep=40", False),
    ("clse", 30, "", True),
    ("evoprune+clse", 11, "evoprune.keep=0.5 clse.keep=30", False),
    ("stepwise", 0, "", False),
    ("visipruner", 50, "", False),
    ("None", 11, "", False),
    ("CLSE@Hybrid", 11, "", False),
]


@pytest.mark.parametrize(("percent", "text"), [(11, "0.11"), (100, "1.0"), (0.5, "0.005")])
def test_a_share_is_never_a_count(percent: float, text: str) -> None:
    assert share(percent) == text


def test_a_share_goes_where_it_can() -> None:
    assert Setting.of("clse", 11) == Setting("clse", "0.11")
    assert Setting.of("clse", 0).keep is None  # the method's own
    assert Setting.of("clse", 11, "keep=40") == Setting("clse", None, ("keep=40",))
    assert [takes_keep(name) for name in ("clse", "fastv@192", "visipruner", "evoprune+clse")] == [
        True,
        False,
        False,
        False,
    ]


def test_parameters_are_explained() -> None:
    told = hint("clse@hybrid")
    assert "cutoff: float = " in told and "variant" not in told and "keep" not in told
    assert hint("evoprune+clse").count("clse.cutoff") == 1


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("", 11, "", False), "no method"),
        (("clsee", 11, "", False), "did you mean 'clse'"),
        (("clse", 11, "cutoff='0.3", False), "a quote does not end"),
        (("clse", 11, "cutof=0.3", False), "cutof"),
        (("clse", 11, "cutoff", False), "name=value"),
        (("none", 11, "", True), "no average"),
    ],
)
def test_what_cannot_be_is_refused(typed: Any, words: str) -> None:
    with pytest.raises(PrunusError, match=words):
        Setting.of(*typed).methods()


def test_no_file_is_run_for_a_visitor(llava_desk: Desk, tmp_path: Path) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text("raise SystemExit('it ran')\n")
    with pytest.raises(PrunusError, match="runs no files"):
        llava_desk.setting(f"{trap}:Trap", 11, "", False)
    with pytest.raises(PrunusError, match="runs no files"):
        llava_desk.setting(f"clse+{trap}:Trap", 11, "", False)
    with pytest.raises(PrunusError, match="runs no files"):
        llava_desk.about(f"{trap}:Trap")
    stages = json.dumps([{"method": f"{trap}:Trap"}])
    with pytest.raises(PrunusError, match="runs no files"):
        llava_desk.setting("prunus", 11, f"stages='{stages}'", False)
    assert llava_desk.about("divprune")[0] and not llava_desk.about("none")[0]


def test_a_file_that_was_named_at_the_start_is_run(llava_desk: Desk, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from dataclasses import dataclass\nfrom prunus.pruners.divprune import DivPrune\n\n\n"
        "@dataclass(frozen=True)\nclass Own(DivPrune):\n    name = 'own'\n"
    )
    desk = Desk("tiny-llava", llava_desk.model, llava_desk.processor, files=(f"{own}:Own",))
    setting = desk.setting(f"{own}:Own", 11, "", False)
    found = desk.ask(desk.prompt(SCENE, QUESTION), setting, 4)
    assert found.report["method"].startswith("own")
    assert f"{own}:Own" in desk.offered("image")


def same_as(desk: Desk, source: Source, question: str, typed: Any, cli: Cli, capsys: Any) -> None:
    """The page, its Python and its command give one answer, and one report."""
    prompt = desk.prompt(source, question)
    setting = Setting.of(*typed)
    answer = desk.ask(prompt, setting, 6)
    given = (desk.name, (), prompt, setting, 6)
    capsys.readouterr()
    exec(compile(python(*given), "page", "exec"), {})
    printed = capsys.readouterr().out
    words = shlex.split(command(*given))
    assert words[:2] == ["prunus", "run"]
    said = cli(*words[1:])
    assert said.code == 0, said.err
    assert printed.splitlines()[0] == said.out.splitlines()[0] == answer.text
    if setting.method != "none":
        assert str(answer.report) in printed
        assert str(answer.report) in said.out


@pytest.mark.parametrize("typed", TYPED, ids=lambda typed: " ".join(map(str, typed)))
def test_what_is_copied_runs_and_says_the_same(
    typed: Any, llava_desk: Desk, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    same_as(llava_desk, SCENE, QUESTION, typed, cli, capsys)


def test_of_a_video(qwen_desk: Desk, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    same_as(qwen_desk, CLIP, ABOUT_CLIP, ("divprune", 25, "", False), cli, capsys)


def test_of_files_with_awkward_names(
    llava_desk: Desk,
    cli: Cli,
    capsys: pytest.CaptureFixture[str],
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An upload is called as its owner calls it, wherever the page keeps it."""
    names = ['-it\'s a "name" $HOME.png', "two words.png"]
    kept, own = tmp_path / "uploads", tmp_path / "own"
    for place in (kept, own):
        place.mkdir()
        for name in names:
            shutil.copy(picture, place / name)
    monkeypatch.chdir(own)
    source = Source.of([str(kept / name) for name in names])
    question = 'what is new in <image>,\n"not" in <image>?'
    same_as(llava_desk, source, question, ("clse", 11, "", False), cli, capsys)
    found = python("tiny-llava", (), llava_desk.prompt(source, question), Setting("clse"), 6)
    assert re.search(r"uploads", found) is None


def test_options_of_loading_come_with_it(llava_desk: Desk) -> None:
    prompt = llava_desk.prompt(SCENE, QUESTION)
    given = ("a/b", (("--dtype", "float16"),), prompt, Setting("clse"), 6)
    assert "prunus.load('a/b', dtype='float16')" in python(*given)
    assert command(*given).endswith("--dtype float16")
