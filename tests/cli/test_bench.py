"""``prunus bench`` on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from prunus.bench.plan import _memory, _notes, make_plan, on_gpu
from prunus.bench.table import aligned, remarks, tables
from tests.support.command_line import Cli, refused

SMALL = ("--shape", "llava-1.5-7b", "--scale", 0.01, "--rounds", 2)


def test_tables_json_and_chart(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    options = ("--methods", "clse,clse-m", "--keep", 64, "--output-tokens", "1,2")
    result = cli("bench", *SMALL, *options, "--output", folder, "--json")
    assert result.code == 0, result.err
    found = json.loads((folder / "bench.json").read_text())
    printed = result.json
    files = printed.pop("files")
    assert printed == {**found, "warnings": []} and len(files) == 3
    [case] = found["cases"]
    rows = {row["name"]: row for row in case["rows"]}
    assert list(rows) == ["dense", "clse", "clse-m"]
    assert case["visual_tokens"] == 576 and case["prompt_tokens"] == 636
    assert rows["clse"]["tokens"]["kept"] == 64 and "the least is" in rows["clse-m"]["refused"]
    made = found["made"]
    assert made["settings"]["methods"] == ["clse", "clse-m"] and made["settings"]["scale"] == 0.01
    assert made["threads"] >= 1 and "torch" in made["versions"] and "bench" in made["command"]
    text = (folder / "bench.md").read_text()
    assert "clse-m is refused" in text and "| clse |" in text
    shown = [aligned(head, rows) for _, head, rows in tables(case)]
    # 80, and a few more where a busy machine takes seconds, or a ratio has two digits.
    assert max(len(line) for table in shown for line in table.splitlines()) <= 96
    last = rows["clse"]
    for number in (f"{last['peak_bytes'] / 2**20:.1f}", f"{last['lengths'][-1]['ratio'][1]:.3f}"):
        assert any(number in table for table in shown)
    with Image.open(folder / "bench.png") as drawn:
        assert drawn.width > 600


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--cuda-graphs",), ("static cache",)),
        (("--shape", "llava-1.5-70b"), ("llava-1.5-7b",)),
        (("--preset", "gpu"), ("cpu",)),
        (("--shape", "llava-1.5-7b", "--model", "tiny-llava"), ("not both",)),
        (("--model", "tiny-llava", "--scale", 0.5), ("--scale",)),
        (("--model", "tiny-llava", "--words", 9), ("--words",)),
        (("--scale", 0), ("above 0",)),
        (("--scale", "nan"), ("above 0",)),
        (("--methods", "clse,clsee"), ("clsee",)),
        (("--methods", "clse,clse"), ("twice",)),
        (("--methods", "none"), ("always",)),
        (("--keep", "many"), ("many",)),
        (("--batch", "1,0"), ("--batch",)),
        (("--output-tokens", "x"), ("--output-tokens",)),
        (("--dtype", "int8"), ("bfloat16",)),
        (("--device", "tpu"), ("auto takes what there is",)),
        (("--device", "meta"), ("clock",)),
        (("--image", "a.png"), ("--model",)),
        (("--shape", "llava-1.5-7b", "--frames", 4, "--scale", 0.01), ("picture",)),
        ((*SMALL, "--methods", "clse", "--attention", "flash"), ("--attention",)),
        (("--model", "tiny-llava", "--attention", "flash"), ("--attention",)),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(cli: Cli, options: Any, words: tuple[str, ...]) -> None:
    refused(cli("bench", *options), *words)


def test_free_memory_counts_what_caches_of_files_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable: 7000 kB\n"
    monkeypatch.setattr(Path, "read_text", lambda self: told)
    assert _memory(torch.device("cpu")) == 7000 * 1024


def test_the_number_type_of_a_model_is_told(cli: Cli) -> None:
    options = ("--methods", "random", "--keep", 64, "--output-tokens", 1, "--rounds", 2)
    result = cli("bench", "--model", "tiny-llava", *options, "--json")
    assert result.json["made"]["settings"]["dtype"] == "float32", result.err
    [case] = result.json["cases"]
    [told] = [rows for _, head, rows in tables(case) if "tok/s" in head]  # of one token, too
    assert [row[0] for row in told] == ["dense", "random"] and all(float(row[-1]) for row in told)
    assert any("2 rounds: quartiles of fewer than 5" in one for one in remarks(case))


def test_help_fills_the_width(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where lines of a docstring end says nothing."""
    monkeypatch.setenv("COLUMNS", "140")
    whole = (
        "the same tokens without choosing (told), and a plain loop over the decoder layers (bare)"
    )
    assert whole in " ".join(cli("bench", "--help").out.split("\n")[3:6])


def test_only_what_is_scaled_down_is_said_to_be() -> None:
    cpu = torch.device("cpu")
    assert _notes(make_plan(preset="cpu"), cpu)
    assert not _notes(make_plan(preset="cpu", model="tiny-llava"), cpu)


def test_the_command_for_a_gpu_has_the_options_that_were_given() -> None:
    assert on_gpu("cpu", "") == "prunus bench --preset cpu --device cuda --output out"
    given = "prunus bench --scale 0.1 --methods 'a b,c' --device=cpu --rounds 3 --output here"
    assert on_gpu("cpu", given) == (
        "prunus bench --preset cpu --methods 'a b,c' --rounds 3 --output here --device cuda"
    )
    named = on_gpu("cpu", "prunus bench --preset cpu --batch 8")
    assert named == "prunus bench --preset cpu --batch 8 --device cuda --output out"


def test_a_selector_of_full_depth_beside_a_small_model_is_said() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    small = make_plan(preset="stepwise-3")
    for device in (cpu, cuda):
        note = _notes(small, device)[0]
        assert note.startswith("stepwise, one-shot: the selector has all layers of the paper's")
        assert "0.25 of its depth" in note
    assert not _notes(replace(small, scale=1.0), cuda)
    assert not any("selector" in note for note in _notes(make_plan(preset="cpu"), cpu))


def test_a_shape_that_does_not_fit_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunus.bench.plan._memory", lambda device: 1e9)
    refused(cli("bench", "--shape", "llava-1.5-7b"), "28.", "--scale")
