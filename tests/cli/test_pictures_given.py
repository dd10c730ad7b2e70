"""Pictures from standard input and folders, in odd shapes and modes, and what is told of them."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.command_line import Cli, refused

Q = ("--prompt", "how many objects are there?", "--max-new-tokens", 2, "--keep", 64)


class _Input:
    def __init__(self, content: bytes, terminal: bool = False) -> None:
        self.buffer, self._terminal = io.BytesIO(content), terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def folder(tmp_path: Path, picture: Path) -> Path:
    place = tmp_path / "photos"
    place.mkdir()
    with Image.open(picture) as image:
        image.convert("RGB").save(place / "b.png")
        image.convert("L").resize((400, 50)).save(place / "a.jpg")
        image.convert("CMYK").resize((10, 10)).save(place / "c.jpg")
    (place / "notes.txt").write_text("no picture")
    return place


def test_standard_input_is_a_picture(
    cli: Cli, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = cli("run", picture, *Q, "--json").json
    monkeypatch.setattr(sys, "stdin", _Input(picture.read_bytes()))
    piped = cli("run", "-", *Q, "--json").json
    assert piped["images"] == ["-"] and piped["tokens"] == named["tokens"]
    assert piped["answer"] == named["answer"] and piped["notes"] == named["notes"] == []
    for given, words in (
        (_Input(b""), "nothing came on standard input"),
        (_Input(b"", terminal=True), "reads an image from standard input"),
        (_Input(b"text"), "on standard input"),
    ):
        monkeypatch.setattr(sys, "stdin", given)
        refused(cli("run", "-", *Q), words)
    refused(cli("run", "-", "-", *Q), "named twice")
    monkeypatch.setattr("prunus.io.images._MOST", 99)
    monkeypatch.setattr(sys, "stdin", _Input(bytes(10**6)))
    refused(cli("run", "-", *Q), "goes on behind")
    assert sys.stdin.buffer.tell() == 100  # what never ends is not read to its end


def test_each_image_of_a_folder_is_asked_about(cli: Cli, folder: Path, tmp_path: Path) -> None:
    told = cli("run", folder, *Q, "--output", tmp_path / "kept")
    assert told.code == 0 and "note: tiny-llava knows drawn scenes only" in told.err
    lines = told.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["a.jpg", "b.png", "c.jpg"]
    assert "3 images; on average 576.0 -> 64.0 visual tokens" in told.out
    drawn = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert drawn == ["a.jpg.png", "b.png.png", "c.jpg.png"]
    facts = cli("run", folder, *Q, "--json").json
    assert [one["answer"] for one in facts["answers"]] == [
        line.partition(": ")[2] for line in lines[:3]
    ]
    assert facts["refused"] == [] and "drawn scenes only" in facts["notes"][0]
    alone = cli("run", folder / "b.png", *Q, "--json").json
    assert alone["answer"] == facts["answers"][1]["answer"]
    assert alone["per_layer"] == facts["answers"][1]["per_layer"]


def test_a_broken_image_of_a_folder_is_told_and_the_others_are_asked(
    cli: Cli, folder: Path
) -> None:
    (folder / "aa.png").write_bytes(b"broken")
    result = cli("run", folder, *Q, "--json")
    assert result.code == 2 and "1 of 4 images could not be asked about" in result.err
    assert len(result.json["answers"]) == 3
    [one] = result.json["refused"]
    assert one["image"].endswith("aa.png") and "no image that Pillow can read" in one["why"]


def test_an_image_that_a_model_refuses_is_told_and_the_others_are_asked(
    cli: Cli, folder: Path
) -> None:
    with Image.open(folder / "b.png") as image:
        image.resize((300, 1)).save(folder / "aa.png")
    qwen = ("--model", "tiny-qwen", *Q)
    result = cli("run", folder, *qwen, "--json")
    assert result.code == 2 and "1 of 4 images could not be asked about" in result.err
    [one] = result.json["refused"]
    assert one["image"].endswith("aa.png") and "aspect ratio" in one["why"]
    answers = [one["answer"] for one in result.json["answers"]]
    assert answers == [
        cli("run", folder / name, *qwen, "--json").json["answer"]
        for name in ("a.jpg", "b.png", "c.jpg")
    ]


def test_what_no_image_can_mend_is_told_once(cli: Cli, folder: Path) -> None:
    result = cli("run", folder, "--prompt", "what <video>", "--max-new-tokens", 2)
    assert result.code == 2 and result.err.count("refused:") == 1, result.err
    assert result.err.splitlines()[-1].startswith("error: ")


def test_a_folder_that_cannot_be_looked_into(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    refused(cli("run", folder, *Q), "cannot look into the folder", "Permission denied")


def test_what_does_not_go_with_a_folder_is_refused(
    cli: Cli, folder: Path, picture: Path, tmp_path: Path
) -> None:
    refused(cli("run", folder, picture, *Q), "name nothing beside it")
    refused(cli("run", folder, *Q, "--time"), "--time is for one prompt")
    overlay = cli("run", folder, *Q, "--save-overlay", tmp_path / "a.png")
    refused(overlay, "give --output DIR for a picture of each")
    refused(cli("run", folder, *Q, "--output", folder), "the folder that is looked at")
    refused(cli("run", picture, *Q, "--output", tmp_path), "give --save-overlay FILE.png")


def test_the_title_says_what_was_asked_of_whom(
    cli: Cli, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunus.viz import draw_panels

    titles: list[str] = []

    def spy(rows: object, path: Path, **options: object) -> Path:
        titles.append(str(options["title"]))
        return draw_panels(rows, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("prunus.viz.draw_panels", spy)
    told = cli("run", picture, *Q, "--method", "FastV", "--save-overlay", tmp_path / "a.png")
    question, what, said = titles[0].splitlines()
    assert question == Q[1] and said == f"answer: {told.out.splitlines()[0]}"
    assert what.startswith("tiny-llava, fastv: 576 -> 64 visual tokens (149.3 per layer")
    assert told.err == ""  # the model knows its own sample
