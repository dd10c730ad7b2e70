"""Help of every command: whole at 80 columns, and at any other width."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from prunus.cli import main
from prunus.cli.app import app
from prunus.cli.flowing import flowing

ROOT = flowing(typer.main.get_command(app))


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words: groups, too, and calibrators, which are made when asked for."""
    yield words, command
    if hasattr(command, "list_commands"):
        context = command.make_context("prunus", [], resilient_parsing=True)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*words, name))


COMMANDS = dict(commands(ROOT))


def help_of(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", COMMANDS)
def test_nothing_is_cut_off(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, values and every word of what is said of them."""
    for width in (80, 47, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        text = help_of(words, capsys)
        assert "…" not in text
        if width == 80:
            assert max(map(len, text.splitlines())) <= 80
        shown = set(text.split())
        command = COMMANDS[words]
        for param in (one for one in command.params if not getattr(one, "hidden", False)):
            names = [*param.opts, *param.secondary_opts]
            if param.param_type_name == "option":
                assert set(names) <= {word.rstrip(",") for word in shown}, names
            assert set((param.help or "").split()) <= shown, param.name
            if param.metavar:
                assert param.metavar in text or param.metavar.strip("[]") in text
        assert set((command.help or "").split()) <= shown
        for one in getattr(command, "commands", {}).values():
            assert set((one.help or "").split("\n\n")[0].split()) <= shown


def test_a_group_alone_is_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("serve",), ("calibrate",)):
        with pytest.raises(SystemExit) as end:
            main(list(words))
        given = capsys.readouterr()
        assert end.value.code == 0 and given.err == ""
        assert given.out.split() == help_of(words, capsys).split()


def test_limits_are_words(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of(("web",), capsys).split())
    assert "[default: 32; from 1]" in text and "[default: 7860; from 0 to 65535]" in text
    assert "1000000000" not in text


@pytest.mark.parametrize("kind", ["dumb", "xterm-256color"])
def test_on_a_terminal_of_80_columns(kind: str) -> None:
    """A real one; colours where it has them, and no line wider than it."""
    ours, theirs = pty.openpty()
    more = {"COLUMNS": "80", "TERM": kind}
    own = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    code = "from prunus.cli import main; main(['web', '--help'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, env={**own, **more}
    ) as process:
        os.close(theirs)
        found = b""
        try:
            while part := os.read(ours, 65536):
                found += part
        except OSError:  # its other end is closed
            pass
        assert process.wait() == 0
    os.close(ours)
    text = found.decode()
    assert ("\x1b[" in text) == (kind != "dumb")
    plain = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
    assert "(my_file.py:MyMethod)" in " ".join(plain).split()
    assert max(map(len, plain)) <= 80
