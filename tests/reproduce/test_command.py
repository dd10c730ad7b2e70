"""``prunus reproduce`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunus.reproduce.builtin import BuiltIn
from tests.support.command_line import Cli, refused


def test_the_list_fits_a_screen(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli("reproduce", "--list").out.splitlines()
    assert len(lines) == 35 and max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    found = cli("reproduce", "--list", "--json").json
    assert found["clse-1"]["model"] == "LLaVA-1.5-7B" and found["clse-1"]["rows"] == 25


def test_a_plan_names_everything(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    text = cli("reproduce", "stepwise-1", "--dry-run").out
    for words in (
        "llava-hf/llava-1.5-7b-hf: 14.1 GB",
        "textvqa_val, 5000 questions of validation",
        "without OCR tokens",
        "prunus eval --model llava-hf/llava-1.5-7b-hf --tasks gqa,",
        "EvalAI",
        "no weights were released",
        "hours, without reading images",
    ):
        assert words in text, words
    found = cli("reproduce", "stepwise-1", "--dry-run", "--json", "--model", "here").json
    assert found["model"] == "here" and found["hours"] > 0


def test_commands_of_many_rows_are_folded(cli: Cli) -> None:
    found = cli("reproduce", "clse-1", "--dry-run", "--json").json["commands"]
    text = cli("reproduce", "clse-1", "--dry-run").out
    assert text.count("prunus eval") == 1 and f"and {len(found) - 1} more" in text
    assert len(found) > 10 and found[0] in text


def test_what_cannot_be_counted_says_why_in_its_own_words(cli: Cli) -> None:
    why = cli("reproduce", "visipruner-5-7b", "--dry-run", "--json").json["not_measured"]["TFLOPs"]
    assert "how many visual tokens each sample kept" in why and "StepPrune" not in why


def test_small_runs_the_whole_way_and_goes_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("reproduce", "visipruner-9", "--small", "--limit", 2, "--output", tmp_path)
    result = cli(*words)
    assert result.code == 0 and "ANOTHER MODEL, tiny-llava" in result.out
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["other_model"] == "tiny-llava" and len(found["lines"]) == 6
    assert found["columns"] == ["accuracy %", "tokens", "FLOPs %", "KV %"]
    for line in found["lines"]:
        assert line["measured"]["accuracy %"] in (0.0, 50.0, 100.0) and not line["why_not"]
        assert line["published"]["GQA"] > 50 and line["measured_relative"] is not None
        assert line["published_relative"] is None  # it is not of these questions
    assert "LLM FLOPs %" in result.out and "nothing published is like it" in result.out
    assert "measurements were there already" not in result.err
    assert (
        "| token 576 | 576 | knockout:layers=0:collapse=true:sink=575 |"
        in (tmp_path / "table.md").read_text()
    )

    def never(*_: object) -> None:
        raise AssertionError("it was measured already")

    monkeypatch.setattr(BuiltIn, "measure", never)
    again = cli(*words, "--json")
    assert again.json["lines"] == found["lines"]
    assert "6 of 6 measurements were there already" in again.err
    assert again.json["made"]["measured before"] == "6 of 6"


def test_costs_are_counted_without_weights(cli: Cli, tmp_path: Path) -> None:
    found = cli("reproduce", "clse-5-image", "--json", "--output", tmp_path).json
    assert found["columns"] == ["FLOPs %", "KV MB"] and found["other_model"] is None
    table = (tmp_path / "table.md").read_text()
    assert "| LLM FLOPs % | KV MiB |" in table and "which papers call MB" in table
    lines = {line["method"]: line for line in found["lines"]}
    assert lines["none"]["measured"] == {"FLOPs %": 100.0, "KV MB": 313.0}
    clse = lines["clse@released"]
    assert clse["measured"]["KV MB"] == clse["published"]["KV MB"] == 56.0
    assert clse["measured"]["FLOPs %"] == pytest.approx(40.59, abs=0.01)
    assert clse["published"]["FLOPs %"] == 43.9
    assert "prunus bench" in found["not_measured"]["prefill ms"]
    assert {one["row"] for one in found["left_out"]} == {"PDrop"}


def test_what_makes_no_sense_is_refused(cli: Cli) -> None:
    refused(cli("reproduce"), "--list")
    refused(cli("reproduce", "clse-99"), "clse-9")
    refused(cli("reproduce", "clse-1", "--list"), "stands alone")
    refused(cli("reproduce", "clse-1", "--small", "--dry-run"), "choose one")
    refused(cli("reproduce", "clse-1", "--small", "--model", "x"), "leave out --model")
    refused(cli("reproduce", "clse-1", "--use", "FastV"), "PUBLISHED=METHOD")
    refused(cli("reproduce", "clse-4"), "nothing of clse-4", "GPT-4o-mini")
    refused(cli("reproduce", "visipruner-5-mobile"), "no class for this model")
