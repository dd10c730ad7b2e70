"""``prunus calibrate visipruner``: a file that ``prunus run`` accepts, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import pytest
from PIL import Image

from prunus import Uniform
from prunus.calibrate import Opt, Outcome, Setup
from prunus.method.calibration import Calibration
from prunus.tasks.evalset import load_evalset
from prunus.tasks.sets import training_questions
from tests.support.command_line import Cli
from tests.support.qwen_processor import save_qwen

COMMAND = ("calibrate", "visipruner")


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_qwen(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate([(64, 48), (48, 80)]):
        Image.linear_gradient("L").resize(size).convert("RGB").save(folder / f"{number}.png")
    return [folder / "0.png", folder / "1.png"]


def test_on_drawn_scenes_and_into_run(cli: Cli, picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "thresholds.json"
    result = cli(*COMMAND, "--output", path, "--limit", 4, "--target", 8)
    assert result.code == 0, result.err
    assert "4 prompts (training scenes)" in result.out and "keeps 8.00 of 576" in result.out
    found = Calibration.load(path)
    assert (found.method, found.model, found.depth) == ("visipruner", "tiny-llava", 12)
    assert found.params["shallow_layers"] == 2 and found.params["layer_threshold"] == 0.995
    assert found.measured["data"] == "training scenes" and found.measured["dtype"] == "float32"
    run = cli(
        *("run", picture, "--prompt", "how many objects are there?", "--method", "visipruner"),
        *("--param", f"calibration={path}", "--max-new-tokens", 1, "--json"),
    )
    assert run.code == 0, run.err
    assert run.json["tokens"]["kept"] < 100


def test_the_evaluation_set_is_not_looked_at() -> None:
    asked = {item.scene.seed for item in load_evalset()}
    scenes = training_questions(100, 1).scenes
    assert len(scenes) == 100
    assert not asked & {scene.seed for scene in scenes if scene is not None}


def test_own_images_and_the_search_for_shallow_layers(
    cli: Cli, qwen_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    common = (*COMMAND, "--output", path, "--model", qwen_folder, "--layer-threshold", 0.99999)
    own = [part for one in pictures for part in ("--image", one)]
    asked = ("--prompt", "what is this ?", "--prompt", "is this a b ?")
    result = cli(*common, *own, *asked, "--target", 5, "--find-shallow", "--max-loss", 60, "--json")
    assert result.code == 0, result.err
    facts = result.json
    assert facts.pop("file") == str(path) and facts.pop("warnings") == []
    assert facts == json.loads(path.read_text())
    assert facts["measured"]["prompts"] == 4 and facts["measured"]["kept"]["mean"] == 5
    search = facts["measured"]["shallow_search"]
    assert search["measure"] == "agreement" and search["prompts"] == 4
    assert [row["shallow_layers"] for row in search["curve"]] == [0, 1, 2]
    assert search["curve"][0]["agreement"] == 1 and search["curve"][0]["loss"] == 0
    text = cli(*common, *own, *asked, "--limit", 3, "--target", 5, "--find-shallow")
    assert text.code == 0, text.err
    assert "shallow stage alone, 3 prompts" in text.out and "agreement %" in text.out


def test_questions_from_a_file(cli: Cli, pictures: list[Path], tmp_path: Path) -> None:
    rows = [
        {"image": str(path), "question": "how many objects are there?", "answer": "two"}
        for path in pictures
    ]
    data = tmp_path / "mine.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    options = ("--data", data, "--shallow-layers", 0, "--layer-threshold", 2, "--json")
    facts = cli(*COMMAND, "--output", tmp_path / "t.json", *options).json
    assert facts["measured"]["data"] == "mine" and facts["measured"]["prompts"] == 2
    assert facts["params"]["shallow_layers"] == 0
    assert facts["measured"]["filtering_layers"] == {"1": 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shallow-layers", "2", "--find-shallow"], ["exclude each other"]),
        (["--max-loss", "0"], ["--max-loss 0", "above 0"]),
        (["--target", "0"], ["--target 0", "above 0"]),
        (["--target", "nan"], ["--target nan"]),
        (["--target", "600", "--limit", "1"], ["target=600", "576 visual tokens"]),
        (["--layer-threshold", "-0.5", "--limit", "1"], ["in none of 1", "Choose a layer_thr"]),
        (["--layer-threshold", "3"], ["layer_threshold=3.0", "cosine"]),
        (["--shallow-layers", "10", "--limit", "1"], ["choose another shallow_layers"]),
        (["--shallow-layers", "-1"], ["--shallow-layers"]),
        (["--limit", "0"], ["--limit"]),
        (["--image", "a.png"], ["--image and --prompt belong together"]),
        (["--prompt", "what?"], ["--image and --prompt belong together"]),
        (["--image", "a.png", "--prompt", "what?"], ["no such image", "a.png"]),
        (["--image", "a.png", "--prompt", "<image>?"], ["without <image>"]),
        (["--data", "a.jsonl", "--prompt", "what?"], ["leave out --image"]),
        (["--data", "a.jsonl"], ["a.jsonl"]),
        (["--model", "tinyllava"], ["did you mean 'tiny-llava'"]),
    ],
)
def test_bad_input(cli: Cli, tmp_path: Path, options: list[str], words: list[str]) -> None:
    result = cli(*COMMAND, "--output", tmp_path / "t.json", *options)
    assert result.code == 2 and result.out == "", result.err
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    for word in words:
        assert word in result.err
    assert not (tmp_path / "t.json").exists()


def test_places_where_nothing_can_be_written(cli: Cli, tmp_path: Path) -> None:
    folder = cli(*COMMAND, "--output", tmp_path)
    assert folder.code == 2 and "is a folder" in folder.err
    (tmp_path / "file").write_text("")
    below = cli(*COMMAND, "--output", tmp_path / "file" / "t.json")
    assert below.code == 2 and "--output" in below.err
    assert "--output" in cli(*COMMAND).err


def test_which_methods_can_be_calibrated(cli: Cli) -> None:
    listed = cli("calibrate", "--help").out
    assert (
        all(one in listed for one in ("fitprune", "stepwise", "visipruner"))
        and "clse" not in listed
    )
    none = cli("calibrate", "clse", "--output", "x.json")
    assert (
        none.code == 2 and "clse has nothing to calibrate: there are fitprune, stepwise" in none.err
    )
    unknown = cli("calibrate", "visiprunner")
    assert unknown.code == 2 and "did you mean 'visipruner'" in unknown.err


def counting(
    setup: Setup,
    *,
    times: Annotated[int, Opt("How often.", least=1)],
    loudly: Annotated[bool, Opt("With a sign.")] = False,
) -> Outcome:
    """Count to a number."""
    return Outcome({"model": setup.model, "times": times}, [f"{times}{'!' * loudly}"])


def test_a_method_brings_its_own_calibrator(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "of_uniform", SimpleNamespace(counting=counting))
    monkeypatch.setattr(Uniform, "calibrator", "of_uniform:counting", raising=False)
    assert cli("calibrate", "uniform", "--times", 3, "--loudly").out == "3!\n"
    facts = cli("calibrate", "uniform", "--times", 3, "--model", "any", "--json").json
    assert facts == {"model": "any", "times": 3, "warnings": []}
    assert "Count to a number." in cli("calibrate", "uniform", "--help").out
    for wrong in ([], ["--times", 0], ["--times", 1, "--target", 2]):
        assert cli("calibrate", "uniform", *wrong).code == 2
