"""``prunus tune`` from the command line: what it writes, what it says, what is refused."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.support.command_line import Cli, refused
from tests.tune.small import questions

FEW = ("--model", "tiny-llava", "--methods", "divprune", "--keep", "0.4,64", "--no-time",
       "--workers", 1)  # fmt: skip


def test_from_the_command_line(cli: Cli, tmp_path: Path, picture: Path) -> None:
    data = questions(tmp_path / "mine")
    what = ("tune", data, *FEW, "--output", tmp_path / "out", "--max-loss", 60)
    result = cli(*what)
    assert result.code == 0, result.err
    assert "too few questions" in result.err and "round 1 of 1: 2 candidates" in result.err
    ahead = re.search(r"^2 candidates, (\d+) answers at most: \d+ (s|min) at", result.err, re.M)
    tuning = json.loads((tmp_path / "out" / "tune.json").read_text("utf-8"))["data"]["tuning"]
    assert ahead is not None and int(ahead[1]) == 2 * tuning["questions"]
    assert 'prunus.prune(model, "divprune", keep=' in result.out
    assert "held-out questions" in result.out and "points lost" in result.out
    again = cli(*what, "--json")
    assert again.code == 0 and "given" not in again.err and "at most:" not in again.err
    found = again.json
    files = found.pop("files")
    assert isinstance(found.pop("warnings"), list)
    assert found == json.loads((tmp_path / "out" / "tune.json").read_text("utf-8"))
    assert [Path(one).name for one in files] == ["tune.json", "pareto.png"]
    assert (tmp_path / "out" / "pareto.png").stat().st_size > 1000
    assert found["made"]["command"].startswith("prunus tune ")
    line = shlex.split(found["answer"]["cli"])
    run = cli(*[str(picture) if word == "photo.jpg" else word for word in line[1:]],
              "--max-new-tokens", 2)  # fmt: skip
    assert run.code == 0, run.err


def test_what_is_refused(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = questions(tmp_path / "mine")
    one = ("tune", data, "--model", "tiny-llava")
    refused(cli(*one), "--max-loss", "--min-speed-up", "--max-kv")
    loss = (*one, "--max-loss", 1)
    refused(cli(*one, "--max-loss", 0), "a loss of 0 points")
    refused(cli(*one, "--min-speed-up", 0.5), "a speed-up of 0.5")
    refused(cli(*one, "--max-kv", "lots"), "40MB")
    refused(cli(*loss, "--methods", "divprun"), "did you mean 'divprune'")
    refused(cli(*loss, "--methods", "blind"), "control")
    refused(cli(*loss, "--keep", "0"), "keep")
    refused(cli(*loss, "--held-out", 1), "--held-out")
    refused(cli(*loss, "--on-error", "skipp"), "did you mean 'skip'")
    refused(cli("tune", "no.jsonl", *loss[2:]), "no such file", "tuning-scenes")
    refused(cli("tune", "scenes", *loss[2:]), "nothing is to be chosen", "tuning-scenes")
    refused(cli("tune", data, "--model", "tiny-lama", "--max-loss", 1), "did you mean 'tiny-llava'")
    refused(cli(*loss, "--device", "cuda:99"), "cuda:99")
    assert not (tmp_path / "tune").exists()
    (tmp_path / "broken.jsonl").write_text('{"image": "a.png", "question": "who?"}')
    refused(cli("tune", "broken.jsonl", *loss[2:]), "broken.jsonl, line 1", "a.png")
