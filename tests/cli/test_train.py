"""``prunus train stepwise`` and ``prunus calibrate stepwise``: from data to a pruned answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from prunus.cli.train import build_settings
from prunus.selector.config import TrainSettings
from prunus.train.watch import Display
from tests.support.chat_models import tiny_llava
from tests.support.command_line import Cli

TRAIN = ("train", "stepwise")
SMALL = (
    *("--set", "selector.width=16", "--set", "selector.heads=2", "--set", "selector.min_steps=1"),
    *("--set", "selector.encoder_layers=1", "--set", "selector.decoder_layers=1"),
    *("--steps", 3, "--batch", 2, "--rate", 0.01, "--max-steps", 4),
)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its processor, and questions about two pictures."""
    place = tmp_path_factory.mktemp("tiny")
    model, processor = tiny_llava()
    model.save_pretrained(place)
    processor.save_pretrained(place)
    for number in range(2):
        picture = Image.linear_gradient("L").rotate(90 * number).resize((32, 32))
        picture.convert("RGB").save(place / f"{number}.png")
    rows = [
        {"image": f"{at % 2}.png", "question": f"what color is box {at}?", "answer": "red"}
        for at in range(8)
    ]
    (place / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    talk = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}]
    records = [{"image": "0.png", "conversations": talk}, {"conversations": talk}]
    (place / "mix.json").write_text(json.dumps(records))
    return place


def common(folder: Path, output: Path, data: str = "mine.jsonl") -> tuple[object, ...]:
    where = ("--model", folder, "--data", folder / data, "--output", output)
    return (*TRAIN, *where, *SMALL, "--held-out", 2 if data == "mine.jsonl" else 0)


# -- a whole life ------------------------------------------------------------------------------


def test_train_go_on_calibrate_and_run(cli: Cli, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "selector"
    first = cli(*common(folder, output), "--minutes", 1e-6)
    assert first.code == 0, first.err
    assert "stopped at step 1 of 3 (its time is over); go on with the same command" in first.err
    assert "1 of 3 steps" in first.out and f"selector={output}" in first.out
    again = cli(*common(folder, output))
    assert again.code == 2 and "holds a run already" in again.err
    other = cli(*common(folder, output), "--resume", "--length", 0.5)
    assert other.code == 2 and "settings.length was 0.01 and is 0.5" in other.err
    done = cli(*common(folder, output), "--resume", "--json")
    assert done.code == 0, done.err
    facts = done.json
    assert (facts["step"], facts["steps"], facts["stopped"]) == (3, 3, None)
    assert facts["held_out"].keys() == {"questions", "kept", "accuracy", "dense"}
    assert facts["held_out"]["questions"] == 2 and facts["figures"]["lm"] > 0
    assert facts["selector"]["width"] == 16 and facts["settings"]["rate"] == 0.01
    assert facts["parameters"] > 1000 and facts["output"] == str(output)
    assert "step 3: " in done.err and "held-out questions right" in done.err

    model = ("--model", folder, "--selector", output)
    data = ("--data", folder / "mine.jsonl")
    found = cli("calibrate", "stepwise", *model, *data, "--keep", "0.2,4", "--json")
    assert found.code == 0, found.err
    budgets = found.json["budgets"]
    assert [one["wanted"] for one in budgets] == [0.2, 0.25]
    assert found.json["questions"] == 8 and all(0 < one["share"] <= 0.5 for one in budgets)
    stored = json.loads((output / "selector.json").read_text())["biases"]
    assert stored == {"0.2": budgets[0]["bias"], "0.25": budgets[1]["bias"]}
    text = cli("calibrate", "stepwise", *model, *data, "--keep", 0.3)
    assert text.code == 0 and "8 questions (mine)" in text.out and "mean of 0.3:" in text.out
    kept = json.loads((output / "selector.json").read_text())["biases"]
    assert kept.keys() == {"0.2", "0.25", "0.3"}, "what was found before stays"

    asked = ("run", folder / "0.png", "--prompt", "what color is the box?", "--model", folder)
    pruned = (*asked, "--max-new-tokens", 1, "--json", "--method", "stepwise")
    chosen = ("--param", f"selector={output}")
    run = cli(*pruned, *chosen, "--keep", 0.25, "--param", "mode=mean")
    assert run.code == 0, run.err
    assert 1 <= run.json["tokens"]["kept"] <= 8
    fixed = cli(*pruned, *chosen, "--keep", 5)
    assert fixed.code == 0 and fixed.json["tokens"]["kept"] == 5


def test_interrupted(
    cli: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Display.step

    def pressed(self: Display, done: int, figures: Any) -> None:
        step(self, done, figures)
        if done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Display, "step", pressed)
    result = cli(*common(folder, tmp_path), "--json")
    assert result.code == 130
    assert "stopped at step 2 of 3 (interrupted); go on with the same command" in result.err
    assert result.json["stopped"] == "interrupt" and result.json["held_out"] == {}
    monkeypatch.undo()
    assert cli(*common(folder, tmp_path), "--resume").code == 0


def test_two_processes(folder: Path, tmp_path: Path) -> None:
    """As on two GPUs: accelerate starts two, each takes half of a batch and of the held-out
    questions, one writes; and the run goes on from its checkpoint."""
    output = tmp_path / "two"
    launch = ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
    settings = ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")
    command = (sys.executable, "-m", *launch, *settings, "-m", "prunus")
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*more: object) -> dict[str, Any]:
        words = [str(word) for word in (*command, *common(folder, output), "--json", *more)]
        done = subprocess.run(words, env=quiet, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    first = run("--minutes", 1e-6)
    assert (first["step"], first["stopped"]) == (1, "minutes")
    done = run("--resume")
    assert (done["step"], done["stopped"]) == (3, None)
    assert done["held_out"]["questions"] == 2
    rows = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 3]  # one of the two writes
    assert (output / "selector.safetensors").exists()


def test_a_control_on_conversations(cli: Cli, folder: Path, tmp_path: Path) -> None:
    control = ("--control", "one-shot", "--keep", 0.25, "--accumulate", 2, "--threads", 1)
    result = cli(*common(folder, tmp_path, "mix.json"), *control)
    assert result.code == 0, result.err
    assert "left out: 1 records without an image" in result.err
    assert "K 4.0 (25.0%)" in result.out and "held out" not in result.out
    card = json.loads((tmp_path / "selector.json").read_text())
    assert card["selector"]["kind"] == "one-shot" and card["training"]["settings"]["keep"] == 0.25
    refused = cli("calibrate", "stepwise", "--model", folder, "--selector", tmp_path, "--keep", 0.2)
    assert refused.code == 2 and "one-shot selector cannot stop" in refused.err


# -- settings ----------------------------------------------------------------------------------


def test_settings_from_the_command_line() -> None:
    built_in = build_settings("tiny-llava", {}, None, [])
    plain = build_settings("a/b", {}, None, [])
    assert plain == TrainSettings() and built_in != plain
    assert build_settings("tiny-llava", {"steps": 7}, None, []).steps == 7
    options = {"keep": "64", "length": 0.0, "arm": "literal"}
    changes = ["selector.causal_encoder=true", "aggregate=last", "beta=0.98", "count=sample"]
    settings = build_settings("a/b", options, "no-stop", [*changes, "selector.clip=5"])
    assert (settings.keep, settings.length, settings.arm) == (64, 0.0, "literal")
    assert (settings.aggregate, settings.beta, settings.count) == ("last", 0.98, "sample")
    assert settings.selector["causal_encoder"] is True and settings.selector["clip"] == 5.0
    assert build_settings("a/b", {}, "one-shot", ["keep=0.1"]).selector["kind"] == "one-shot"
    assert build_settings("a/b", {}, None, ["max_steps=none"]).max_steps is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--control", "one-shot"], ["--control one-shot", "add --keep"]),
        (["--control", "no-stop"], ["--control no-stop", "add --keep"]),
        (["--control", "oneshot"], ["unknown control", "did you mean 'one-shot'"]),
        (["--set", "beta"], ["--set 'beta' is not FIELD=VALUE"]),
        (["--set", "betta=1"], ["unknown setting", "did you mean 'beta'"]),
        (["--set", "selector.visual_width=8"], ["unknown setting 'selector.visual_width'"]),
        (["--set", "selector={}"], ["unknown setting 'selector'"]),
        (["--set", "beta=much"], ["beta='much' does not fit: expected float"]),
        (["--set", "beta=2"], ["beta=2.0", "(0, 1]"]),
        (["--set", "rate=1", "--rate", "1"], ["rate is given twice"]),
        (["--set", "selector.clip=1", "--set", "selector.clip=2"], ["selector.clip is given twi"]),
        (["--set", "selector.kind=one-shot"], ["one-shot control", "give keep"]),
        (["--set", "aggregate=mean"], ["aggregate", "full | alive | uniform | last"]),
        (["--keep", "0"], ["keep=0 keeps nothing"]),
        (["--keep", "some"], ["--keep 'some'"]),
        (["--arm", "other"], ["arm='other'", "stable"]),
        (["--precision", "fp8"], ["unknown precision 'fp8'"]),
        (["--minutes", "0"], ["minutes=0"]),
        (["--steps", "0"], ["--steps"]),
        (["--resume"], ["no run in", "leave out resume"]),
        (["--data", "gone.json"], ["cannot read the data in 'gone.json'"]),
        (["--model", "tiny-lava"], ["unknown model", "did you mean 'tiny-llava'"]),
    ],
)
def test_bad_input(cli: Cli, tmp_path: Path, options: list[str], words: list[str]) -> None:
    result = cli(*TRAIN, "--output", tmp_path / "out", *options)
    assert result.code == 2 and result.out == ""
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    for word in words:
        assert word in result.err


def test_a_batch_is_split_before_anything_is_written(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    result = cli(*common(folder, tmp_path), "--accumulate", 3)
    assert result.code == 2 and "batch=2 cannot be split evenly" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep", "x"], ["--keep 'x'"]),
        (["--keep", "0.1,"], ["--keep ''"]),
        (["--keep", "0.1"], ["no selector in", "prunus train stepwise"]),
        (["--keep", "0.1", "--prompt", "what?"], ["--image and --prompt belong together"]),
    ],
)
def test_bad_calibration(
    cli: Cli, folder: Path, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    where = ("--model", folder, "--selector", tmp_path / "none")
    result = cli("calibrate", "stepwise", *where, *options)
    assert result.code == 2 and result.out == ""
    for word in words:
        assert word in result.err
