"""``prunus eval --tasks`` where it cannot work: what is missing, and what to do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.support.command_line import Cli, refused

TASKS = ("eval", "--tasks", "gqa,mme")
HERE = importlib.util.find_spec("lmms_eval") is not None


@pytest.mark.skipif(HERE, reason="lmms-eval is installed")
def test_without_lmms_eval_it_says_how_to_get_it(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = cli(*TASKS, "--method", "clse", "--keep", "64", "--output", output)
    refused(result, "lmms-eval", "make lmms-env", "prunus[lmms]")
    assert not output.exists()


def test_it_asks_for_methods_and_a_place(cli: Cli, tmp_path: Path) -> None:
    refused(cli(*TASKS, "--output", tmp_path), "--methods")
    refused(cli(*TASKS, "--methods", "clse"), "--output")
    refused(cli(*TASKS, "--methods", "clse", "--data", "scenes"), "--data")
    refused(cli("eval", "--include", tmp_path), "--tasks")
    refused(cli(*TASKS, "--methods", "clse,blind", "--output", tmp_path / "out"), "blind")
    refused(cli(*TASKS, "--methods", "clse", "--output", tmp_path, "--model", "tiny-lava"), "tiny-")
