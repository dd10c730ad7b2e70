"""Data that cannot be used: one line with file and line, what was done so far, or what to skip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunus.train.loader import index_at
from prunus.train.state import State
from tests.support.command_line import Cli, Result
from tests.support.files import png

EVAL = ("eval", "--methods", "uniform", "--keep", "64", "--batch", "2")
TRAIN = ("train", "stepwise", "--steps", "2", "--batch", "2", "--held-out", "0", "--max-steps", "8")
LINES = 5


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five questions about five images."""
    rng = np.random.default_rng(0)
    for number in range(LINES):
        pixels = rng.integers(0, 256, (192, 192, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    path = tmp_path / "q.jsonl"
    path.write_text("".join(f"{row(number)}\n" for number in range(LINES)))
    return path


def row(number: int, **changes: Any) -> str:
    facts = {"image": f"{number}.png", "question": f"what is it {number} ?", "answer": "red"}
    return json.dumps({**facts, **changes})


def with_line(path: Path, line: bytes, at: int = 3) -> None:
    """Put ``line`` in the place of line ``at``."""
    lines = path.read_bytes().splitlines()
    lines[at - 1] = line
    path.write_bytes(b"\n".join(lines) + b"\n")


def refused(result: Result, *words: str) -> None:
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    for word in words:
        assert word in result.err


#: Lines that are wrong by themselves: found before anything is asked.
BAD_LINES = {
    "is no JSON": b"{",
    "nested too deeply": b"[" * 100_000 + b"]" * 100_000,
    "is no UTF-8": b'{"image": "2.png", "question": "\xff", "answer": "a"}',
    "half of a surrogate pair": b'{"image": "2.png", "question": "\\ud800", "answer": "a"}',
    "no such image file": row(9).encode(),
    "a folder is no image file": row(2, image=".").encode(),
    "no such image file: 'a\\x00b'": row(2, image="a\0b").encode(),
    "expected an object": b'{"image": 3, "question": "a", "answer": "b"}',
    "is no JSON: Exceeds": b'{"a": ' + b"9" * 5000 + b"}",
}

#: Images that are wrong: found when they are opened.
BAD_IMAGES = {
    "is empty (0 bytes)": b"",
    "is no image that Pillow can read": b"hello",
    "is too large": png(40000, 40000),
    "cannot read the image": None,  # cut off
}


def spoil(data: Path, content: bytes | None) -> None:
    picture = data.parent / "2.png"
    picture.write_bytes(picture.read_bytes()[:3000] if content is None else content)


@pytest.mark.parametrize("words", BAD_LINES)
def test_a_bad_line(cli: Cli, data: Path, words: str) -> None:
    with_line(data, BAD_LINES[words])
    refused(cli(*EVAL, "--data", data), "q.jsonl, line 3", words)
    refused(cli(*TRAIN, "--data", data, "--output", data.parent / "s"), "q.jsonl, line 3", words)


@pytest.mark.parametrize("words", BAD_IMAGES)
def test_a_bad_image_leaves_the_answers_before_it(cli: Cli, data: Path, words: str) -> None:
    spoil(data, BAD_IMAGES[words])
    output = data.parent / "out"
    result = cli(*EVAL, "--data", data, "--output", output)
    refused(result, "q.jsonl, line 3: ", words, f"answers to 2 questions before it are in {output}")
    answers = [json.loads(line) for line in (output / "answers.jsonl").read_text().splitlines()]
    assert [answer["question"] for answer in answers] == ["what is it 0 ?", "what is it 1 ?"]
    found = json.loads((output / "accuracy.json").read_text())
    assert found["set"]["questions"] == 2 and found["settings"]["complete"] is False
    assert {len(right) for right in found["right"].values()} == {2}


def test_what_is_answered_does_not_depend_on_what_comes_behind(cli: Cli, data: Path) -> None:
    whole = cli(*EVAL, "--data", data, "--limit", "2", "--json").json
    spoil(data, b"")
    output = data.parent / "out"
    cli(*EVAL, "--data", data, "--output", output)
    part = json.loads((output / "accuracy.json").read_text())
    assert part["right"] == whole["right"]
    for mine, theirs in zip(part["rows"], whole["rows"], strict=True):
        assert mine["figures"] == theirs["figures"] and mine["accuracy"] == theirs["accuracy"]


def test_without_a_folder_the_message_says_what_would_keep_them(cli: Cli, data: Path) -> None:
    spoil(data, b"")
    refused(cli(*EVAL, "--data", data), "line 3", "--output", "--on-error skip")


@pytest.mark.parametrize("question", ["is <image> red ?", "<image>"])
def test_a_placeholder_in_a_question(cli: Cli, data: Path, question: str) -> None:
    with_line(data, row(2, question=question).encode())
    refused(cli(*EVAL, "--data", data), "q.jsonl, line 3: ", "placeholder <image>", "take it out")
    output = data.parent / "s"
    refused(cli(*TRAIN, "--data", data, "--output", output), "q.jsonl, line 3: ", "<image>")


def test_a_placeholder_of_another_model_is_a_text(cli: Cli, data: Path) -> None:
    with_line(data, row(2, question="is <|image_pad|> red ?").encode())
    assert cli(*EVAL, "--data", data, "--limit", "3").code == 0
    result = cli(*EVAL, "--data", data, "--model", "tiny-qwen")
    refused(result, "q.jsonl, line 3: ", "placeholder <|image_pad|>")


def test_what_a_processor_cannot_take(cli: Cli, data: Path) -> None:
    Image.new("RGB", (1200, 2)).save(data.parent / "2.png")
    result = cli(*EVAL, "--data", data, "--model", "tiny-qwen")
    refused(result, "q.jsonl, line 3: the model's processor cannot take", "aspect ratio")


def test_skipping_counts_and_says_why(cli: Cli, data: Path) -> None:
    with_line(data, b"{", at=1)
    with_line(data, row(1, question="<image>").encode(), at=2)
    spoil(data, b"")
    result = cli(*EVAL, "--data", data, "--on-error", "skip", "--json")
    assert result.code == 0
    said = result.err.splitlines()
    assert said[0] == "skipped 3 questions:" and len(said) == 4
    for line, words in zip(
        said[1:], ("1 is no JSON", "2: the text '<image>'", "3: the image"), strict=True
    ):
        assert line.startswith(f"q.jsonl, line {words}")
    assert result.json["set"]["questions"] == 2
    assert result.json["settings"]["skipped"] == {"questions": 3, "why": said[1:]}
    # The others are answered as they are without them.
    data.write_text("".join(f"{row(number)}\n" for number in (3, 4)))
    alone = cli(*EVAL, "--data", data, "--json").json
    assert alone["right"] == result.json["right"] and "skipped" not in alone["settings"]


def test_nothing_is_left(cli: Cli, data: Path) -> None:
    for number in range(LINES):
        (data.parent / f"{number}.png").write_bytes(b"")
    result = cli(*EVAL, "--data", data, "--on-error", "skip")
    assert result.code == 2 and result.out == ""
    assert "none of the questions can be asked: q.jsonl, line 1" in result.err
    data.write_text("{\n[]\n")
    refused(cli(*EVAL, "--data", data, "--on-error", "skip"), "holds no questions that can be")


def test_on_error_is_one_of_two(cli: Cli, data: Path) -> None:
    refused(cli(*EVAL, "--data", data, "--on-error", "stopp"), "did you mean 'stop'")
    output = data.parent / "s"
    refused(cli(*TRAIN, "--data", data, "--output", output, "--on-error", "x"), "stop", "skip")


def test_a_byte_order_mark_and_signs_that_end_lines_elsewhere(cli: Cli, data: Path) -> None:
    line = json.dumps({"image": "0.png", "question": "a \u2028 b \x85 ?", "answer": "red"})
    text = json.loads(line)
    data.write_bytes(b"\xef\xbb\xbf" + json.dumps(text, ensure_ascii=False).encode() + b"\r\n")
    assert cli(*EVAL, "--data", data, "--json").json["set"]["questions"] == 1


def test_other_commands_name_the_line_too(cli: Cli, data: Path) -> None:
    spoil(data, b"")
    for command in (
        ("analyse", "knockout", "--output", data.parent / "a"),
        ("calibrate", "visipruner", "--output", data.parent / "c.json"),
    ):
        refused(cli(*command, "--data", data), "q.jsonl, line 3: the image", "0 bytes")
    assert not (data.parent / "c.json").exists()


def test_a_second_run_into_a_folder_is_refused(cli: Cli, data: Path) -> None:
    from tests.support.files import another_process

    output = data.parent / "out"
    with another_process(output):
        for command in (
            (*EVAL, "--data", data),
            (*TRAIN, "--data", data),
            ("analyse", "knockout"),
            ("builtin", "train", "--minutes", "0.01"),
        ):
            refused(cli(*command, "--output", output), "another run is writing into")


# -- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_training_stops_at_a_bad_image_with_its_line(cli: Cli, data: Path, workers: int) -> None:
    spoil(data, b"")
    output = data.parent / "s"
    arguments = ("--steps", "9", "--data", data, "--output", output, "--workers", workers)
    refused(cli(*TRAIN, *arguments), "q.jsonl, line 3: the image", "is empty (0 bytes)")


@pytest.mark.parametrize("workers", [0, 1])
def test_training_goes_on_without_it(cli: Cli, data: Path, workers: int) -> None:
    with_line(data, b"{", at=1)
    with_line(data, row(1, answer=" ").encode(), at=2)
    spoil(data, b"")
    output = data.parent / "s"
    result = cli(
        *TRAIN, "--steps", "4", "--data", data, "--output", output, "--on-error", "skip",
        "--workers", workers, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "skipped: 2" in result.err and "q.jsonl, line 1 is no JSON" in result.err
    assert "q.jsonl, line 2: question or answer is empty" in result.err
    [why] = result.json["skipped"]
    assert why.startswith("q.jsonl, line 3: the image") and why in result.err
    assert result.json["step"] == 4


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_conversations(cli: Cli, data: Path, suffix: str) -> None:
    turns = [{"from": "human", "value": "<image>\nwhat ?"}, {"from": "gpt", "value": "red"}]
    records: list[Any] = [
        {"image": f"{number}.png", "conversations": turns} for number in range(LINES)
    ]
    records[1] = {"image": "1.png", "conversations": [{"from": "human"}]}
    records[3] = {"image": "gone.png", "conversations": turns}
    path = data.parent / f"mix.{suffix}"
    lines = [json.dumps(record) for record in records]
    path.write_text("\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]")
    place = "line" if suffix == "jsonl" else "record"
    output = data.parent / "s"
    refused(
        cli(*TRAIN, "--data", path, "--output", output), f"mix.{suffix}, {place} 2: a turn must"
    )
    result = cli(*TRAIN, "--data", path, "--output", output, "--on-error", "skip")
    assert result.code == 0 and "skipped: 2" in result.err
    assert f"mix.{suffix}, {place} 4: no such image file: 'gone.png'" in result.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff", "is no UTF-8"),
        (b'[{"conversations": [{"from": "human", "value": "\\ud800"}]}]', "surrogate"),
    ],
)
def test_files_of_conversations_that_are_none(
    cli: Cli, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "mix.json").write_bytes(content)
    arguments = ("--data", tmp_path / "mix.json", "--output", tmp_path / "s")
    refused(cli(*TRAIN, *arguments), "mix.json", words)


def test_what_was_learned_before_a_bad_image_is_kept(cli: Cli, data: Path) -> None:
    third = index_at(2, LINES, seed=0)
    (data.parent / f"{third}.png").write_bytes(b"")
    output = data.parent / "s"
    arguments = (*TRAIN, "--batch", "1", "--steps", "4", "--data", data, "--output", output)
    refused(cli(*arguments), f"q.jsonl, line {third + 1}: the image")
    assert State.load(output).step == 2 and (output / "selector.json").is_file()
    resumed = cli(*arguments, "--resume", "--on-error", "skip", "--json")
    assert resumed.code == 0 and resumed.json["step"] == 4


@pytest.mark.parametrize(
    "command", [("eval",), ("analyse", "sinks"), ("compare", "--methods", "clse", "--output", "o")]
)
def test_a_file_that_is_not_there(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*command, "--data", "none.jsonl")
    refused(result, "no such file: 'none.jsonl' (built-in questions: scenes, sizes, videos)")
    assert "Errno" not in result.err and not (tmp_path / "o").exists()
    refused(cli(*command, "--data", "scene"), "did you mean 'scenes'?")
