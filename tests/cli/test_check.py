"""``prunus check``: a table, JSON or Markdown on standard output, and an exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunus.checking import COLUMNS
from prunus.cli import console
from prunus.run import Run
from tests.support.command_line import Cli
from tests.support.qwen_processor import save_qwen

SOME = ("check", "--model", "tiny-qwen", "--methods", "clse,one-shot")


def test_a_table_and_exit_code_0(cli: Cli) -> None:
    told = cli(*SOME)
    assert told.code == 0, told.out
    for word in [*COLUMNS, "clse", "variant=released", "refused", "train one", "sdpa", "float32"]:
        assert word in told.out
    assert "2 right, 1 refused" in told.out and "WRONG" not in told.out


def test_without_a_terminal_lines_say_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.steps_of("checking") as started:
        for now[0], name in ((1.0, "a"), (11.0, "b"), (50.0, "c"), (75.0, "d")):
            started(name, 4)
    said = capsys.readouterr().err.splitlines()
    assert said == ["checking b: 1 of 4 done", "checking d: 3 of 4 done"]


def test_json(cli: Cli) -> None:
    told = cli(*SOME, "--json", "--attention", "eager", "--dtype", "bfloat16")
    facts = told.json
    assert told.code == 0 and facts["ok"] is True and facts["model"] == "tiny-qwen"
    assert facts["environment"]["attention"] == "eager"
    assert facts["environment"]["dtype"] == "bfloat16"
    assert [row["method"] for row in facts["rows"]] == ["clse", "clse", "one-shot"]
    assert facts["rows"][0]["checks"]["decode"]["error"] <= facts["tolerance"] < 0.3


def test_a_block_for_bug_reports(cli: Cli) -> None:
    told = cli(*SOME, "--report")
    assert told.code == 0 and told.out.startswith("## prunus check")
    assert "| method | setting |" in told.out and "* torch: " in told.out


def test_a_bug_report_says_what_was_used_and_not_where_it_lies(cli: Cli, tmp_path: Path) -> None:
    texts = []
    for name in ("somewhere-private", "elsewhere"):
        save_qwen(tmp_path / name)
        told = cli("check", "--model", tmp_path / name, "--methods", "random", "--report")
        assert told.code == 0, told.out
        assert name not in told.out and str(tmp_path) not in told.out
        assert str(Path.home()) + "/" not in told.out
        texts.append(told.out)
    lines = [dict(re.findall(r"^\* ([a-z]+): (.*)$", text, re.MULTILINE)) for text in texts]
    assert {"libraries", "sizes", "configuration", "weights", "processor"} <= set(lines[0])
    assert re.fullmatch("[0-9a-f]{12}", lines[0]["configuration"])
    assert lines[0]["configuration"] == lines[1]["configuration"]  # of the same, elsewhere
    assert "numpy " in lines[0]["libraries"] and "decoder.model_type" in lines[0]["sizes"]


def test_a_saved_model_with_its_processor(cli: Cli, tmp_path: Path) -> None:
    save_qwen(tmp_path)
    told = cli("check", "--model", tmp_path, "--methods", "random,evoprune,visipruner", "--json")
    assert told.code == 0, told.out
    assert {row["status"] for row in told.json["rows"]} == {"ok"}


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run that leaves something on the model."""
    detach = Run.detach
    handles: list[Any] = []

    def detached(run: Run) -> None:
        detach(run)
        handles.append(run._model.register_forward_hook(lambda *_: None))

    monkeypatch.setattr(Run, "detach", detached)
    yield
    for handle in handles:
        handle.remove()


def test_something_wrong_is_exit_code_1(cli: Cli, fault: None) -> None:
    told = cli("check", "--model", "tiny-qwen", "--methods", "random")
    assert told.code == 1
    assert "failed" in told.out and "2 WRONG" in told.out and "forward hook left" in told.out
    told = cli("check", "--model", "tiny-qwen", "--methods", "random", "--json")
    assert told.code == 1 and told.json["ok"] is False


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--methods", "clsee"], "did you mean 'clse'"),
        (["--methods", ""], "unknown method ''"),
        (["--model", "tinyllava"], "did you mean 'tiny-llava'"),
        (["--device", "toaster"], "toaster"),
        (["--dtype", "int8"], "int8"),
        (["--attention", "nonsense"], "nonsense"),
        (["--report", "--json"], "choose one"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cli: Cli, options: list[str], word: str) -> None:
    told = cli("check", *options)
    assert told.code == 2 and told.out == ""
    assert told.err.startswith("error: ") and told.err.count("\n") == 1
    assert word in told.err
