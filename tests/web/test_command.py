"""``prunus web``: what is refused before anything is loaded, and a page that comes and goes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from prunus.web import serve
from tests.support.command_line import Cli, refused


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused has nothing to do with Gradio, nor is it reached."""
    monkeypatch.setattr(serve, "check_installed", lambda: None)

    def started(*_: Any) -> None:
        raise AssertionError("the page was started")

    monkeypatch.setattr(serve, "launch", started)


def test_without_gradio_one_line_says_how_to_get_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    refused(cli("web", "--no-browser"), "pip install 'prunus[web]'", "an environment of its own")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "clsee"], "did you mean 'clse'"),
        (["--method", "a.py:A"], "no such file"),
        (["--method", "clse", "--method", "tome", "--method", "evs"], "compares two"),
        (["--model", "tiny-lava"], "did you mean 'tiny-llava'"),
        (["--host", "nowhere.invalid"], "no address"),
        (["--device", "abacus"], "abacus"),
        (["--port", "70000"], "65535"),
    ],
)
def test_what_cannot_be(cli: Cli, arguments: list[str], words: str) -> None:
    refused(cli("web", "--no-browser", *arguments), words)


@pytest.mark.usefixtures("installed")
def test_a_port_that_is_taken(cli: Cli) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(cli("web", "--no-browser", "--port", port), f"--port {port}", "or 0 for any")


def test_from_start_to_end(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="needs prunus[web]: make test-web")
    own = tmp_path / "own.py"
    own.write_text(
        "from dataclasses import dataclass\nfrom prunus.pruners.uniform import Uniform\n\n\n"
        "@dataclass(frozen=True)\nclass Own(Uniform):\n    name = 'own'\n"
    )
    command = [sys.executable, "-m", "prunus", "web", "--no-browser", "--port", "0", "--json"]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "kept")}
    with subprocess.Popen(
        [*command, "--method", f"{own}:Own", "--model", "tiny-llava"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        try:
            assert running.stdout is not None
            told = ""
            for line in running.stdout:
                told += line
                if line == "}\n":
                    break
            facts = json.loads(told)
            assert facts["methods"] == [f"{own}:Own", "divprune"]
            with urllib.request.urlopen(f"{facts['url']}config", timeout=60) as page:
                assert json.load(page)["title"] == "prunus"
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130
    assert out == ""
    assert "Traceback" not in err
