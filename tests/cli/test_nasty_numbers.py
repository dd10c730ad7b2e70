"""Numbers of the command line that are none, or far too large: one line, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from prunus.cli import analyse, builtin, calibrate, run, train
from prunus.cli import eval as eval_command
from tests.support.command_line import Cli, refused

HUGE = "1" + "0" * 30
WHOLE = ["nan", "inf", "5.5", "-1", HUGE, "9" * 5000, "true", "", "1e3"]


COMMANDS: dict[tuple[str, ...], Any] = {
    ("run",): run.run,
    ("eval",): eval_command.evaluate,
    ("analyse",): analyse.analyse,
    ("calibrate", "visipruner"): calibrate.command("visipruner"),
    ("calibrate", "stepwise"): calibrate.command("stepwise"),
    ("train", "stepwise"): train.stepwise,
    ("builtin", "train"): builtin.train,
}


def options(kind: type) -> list[tuple[tuple[str, ...], str]]:
    """Every option of every command that takes such a number, with the words of the command."""
    return [
        (words, f"--{name.replace('_', '-')}")
        for words, command in COMMANDS.items()
        for name, hint in get_type_hints(command).items()
        if hint is kind or kind in get_args(hint)
    ]


def given(words: tuple[str, ...], folder: Path) -> list[object]:
    """What else the command needs."""
    needed: dict[str, list[object]] = {
        "run": [folder / "none.png", "--prompt", "what ?"],
        "train": ["--output", folder / "s"],
        "calibrate": ["--output", folder / "c.json"],
    }
    if words[-1] == "stepwise" and words[0] == "calibrate":
        return ["--selector", folder, "--keep", "0.1"]
    return needed.get(words[0], []) if words != ("builtin", "train") else ["tiny-llava"]


@pytest.mark.parametrize(("words", "option"), options(int))
def test_whole_numbers(cli: Cli, tmp_path: Path, words: tuple[str, ...], option: str) -> None:
    for value in WHOLE:
        refused(cli(*words, *given(words, tmp_path), option, value), option)


@pytest.mark.parametrize(("words", "option"), options(float))
def test_other_numbers(cli: Cli, tmp_path: Path, words: tuple[str, ...], option: str) -> None:
    for value in ("nan", "abc", "", "-1e400"):
        refused(cli(*words, *given(words, tmp_path), option, value))


def test_there_are_some() -> None:
    assert len(options(int)) > 15 and len(options(float)) > 5
