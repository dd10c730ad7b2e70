"""``prunus compare`` from the command line: options, what is refused, writing anew."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import Cli, refused

FEW = ("compare", "--models", "tiny-llava", "--methods", "uniform,random", "--keep", "0.2,64",
       "--limit", 3, "--seeds", 1, "--no-time", "--pictures", 0, "--workers", 1)  # fmt: skip


def test_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    result = cli(*FEW, "--output", tmp_path / "out", "--rival", "uniform", "--json")
    assert result.code == 0, result.err
    found = result.json
    saved = json.loads((tmp_path / "out" / "comparison.json").read_text("utf-8"))
    files = found.pop("files")
    assert found == {**saved, "warnings": []} and len(files) == 7
    [run] = saved["runs"]
    assert [(row["method"], row["meaning"], row["nominal"]) for row in run["rows"]] == [
        (method, meaning, count)
        for count in (115, 64)
        for meaning in ("true", "nominal")
        for method in ("uniform", "random")
    ]
    assert run["rival"] == "uniform" and set(run["rows"][1]["against"]) == {"dense", "uniform"}
    assert saved["made"]["settings"]["workers"] == 1 and saved["pictures"] == []
    assert (tmp_path / "out" / "store" / "store.json").is_file()
    # one meaning, no rival: nothing of it is asked
    again = cli(*FEW, "--output", tmp_path / "out", "--budget", "true", "--rival", "none")
    assert again.code == 0 and again.err == "" and "20.0 %, 115 tokens" in again.out
    page = tmp_path / "leaderboard.md"
    result = cli("compare", "--from", tmp_path / "out", "--markdown", page)
    assert result.code == 0, result.err
    assert page.read_text("utf-8").startswith("# prunus compare\n")  # that of no preset
    assert "3 questions about 1 images, 576 visual tokens each." in page.read_text("utf-8")
    assert page.read_text("utf-8") == (tmp_path / "out" / "table.md").read_text("utf-8")


def test_a_rival_may_be_called_otherwise(cli: Cli, tmp_path: Path) -> None:
    """As it is named among the methods: another way to say a preset, or a file."""
    own = tmp_path / "mine.py"
    own.write_text(
        "from dataclasses import dataclass\n"
        "from prunus.pruners.uniform import Uniform\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(Uniform):\n    name = 'mine-of-a-file'\n"
    )
    few = (*FEW[:3], "--methods", f"uniform,{own}:Mine", *FEW[5:])
    rival = ("--budget", "true", "--rival", f"{own}:Mine")
    result = cli(*few, "--output", tmp_path / "out", *rival)
    assert result.code == 0, result.err
    [run] = json.loads((tmp_path / "out" / "comparison.json").read_text("utf-8"))["runs"]
    row = run["rows"][0]
    assert run["rival"] == "mine-of-a-file" and set(row["against"]) == {"dense", run["rival"]}


def test_what_is_refused(cli: Cli, tmp_path: Path) -> None:
    out = ("--output", tmp_path)
    refused(cli("compare"), "--output", "--store")
    refused(cli("compare", *out, "--preset", "smok"), "did you mean 'smoke'")
    refused(cli("compare", *out, "--budget", "truth"), "true, nominal or both")
    refused(cli("compare", *out, "--methods", "fastw"), "did you mean 'fastv'")
    refused(cli("compare", *out, "--methods", "fastv", "--rival", "dart"), "--methods")
    refused(cli("compare", *out, "--methods", "fastv,blind", "--rival", "blind"), "no budget")
    refused(cli("compare", *out, "--methods", "fastv,,dart"), "single commas")
    refused(
        cli("compare", *out, "--models", "tiny-lama", "--methods", "fastv"),
        "did you mean 'tiny-llava'",
    )
    refused(cli("compare", *out, "--data", "nowhere.jsonl", "--methods", "fastv"), "nowhere")
    refused(cli("compare", "--from", tmp_path / "no.json"), "no.json")
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "a.png").touch()
    data = tmp_path / "mine.jsonl"
    data.write_text('{"image": "holiday/a.png", "question": "which?", "answer": "a"}')
    refused(cli("compare", *out, "--data", data, "--methods", "ground-truth"), "scenes")
    refused(cli(*FEW, "--store", tmp_path / "holiday"), "no store of answers")


def test_from_goes_with_nothing_that_asks(cli: Cli, tmp_path: Path) -> None:
    """It would be ignored: what was asked stands in the comparison."""
    there = ("--from", tmp_path)
    for more in (
        ("--methods", "fastv"), ("--models", "tiny-llava"), ("--keep", "64"), ("--no-time",),
        ("--budget", "true"), ("--limit", "3"), ("--preset", "readme"), ("--store", tmp_path),
        ("--on-error", "skip"), ("--workers", "1"),
    ):  # fmt: skip
        option = "--time" if more == ("--no-time",) else more[0]
        refused(cli("compare", *there, *more), f"leave out {option} ")


def test_a_comparison_is_named_once(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "comparison.json").write_text("{}")
    (tmp_path / "link").symlink_to(out)
    for other in (f"{out}/", out / "comparison.json", tmp_path / "link", f"{out}/../out"):
        refused(cli("compare", "--from", f"{out},{other}"), "more than once", "it is")
        refused(cli("compare", "--from", out, "--from", other), "more than once", "it is")


def test_what_cannot_be_written_is_said_before_anything_is_asked(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(*_: object, **__: object) -> None:
        raise AssertionError("it was asked")

    monkeypatch.setattr("prunus.cli.compare.watched", watched)
    out = tmp_path / "out"
    (out / "table.tex").mkdir(parents=True)
    refused(cli(*FEW, "--output", out), "--output", "table.tex", "folder")
    file = tmp_path / "file"
    file.touch()
    refused(cli(*FEW, "--output", file / "out"), "--output", "file")
    new = tmp_path / "new"
    refused(cli(*FEW, "--output", new, "--markdown", file / "a.md"), "--markdown", "file")
    assert not new.exists()
    # a folder as soon as the command has begun
    refused(cli(*FEW, "--output", new, "--markdown", new), "--markdown", "folder")
    refused(cli(*FEW, "--store", new / "s", "--markdown", new / "s"), "--markdown", "folder")


@pytest.mark.parametrize("option", ["--output", "--markdown", "--store"])
def test_no_folder_is_none_and_not_the_one_we_are_in(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """As of a shell's variable that is not set."""
    monkeypatch.chdir(tmp_path)
    refused(cli(*FEW, option, ""), f"{option} is empty")
    refused(cli(*FEW, f"{option}="), f"{option} is empty")
    refused(cli("bench", "--output", " "), "--output is empty")
    assert not list(tmp_path.iterdir())
