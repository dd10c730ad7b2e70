"""``prunus run`` with methods inside the vision tower, alone and before one in the decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.support.command_line import Cli
from tests.support.qwen_processor import save_qwen

ASK = ("--prompt", "which number is the white digit?", "--max-new-tokens", 3)


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_qwen(folder)
    return folder


def test_evoprune_on_the_built_in_model(cli: Cli, picture: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "merged.png"
    options = ("--method", "evoprune", "--keep", 64, "--save-overlay", overlay)
    facts = cli("run", picture, *ASK, *options, "--json").json
    assert facts["tokens"]["kept"] == facts["tokens"]["average"] == 64
    assert facts["stages"] == [
        {"method": "evoprune", "place": "encoder", "layer": None, "before": 576, "after": 64}
    ]
    assert facts["flops"]["encoder_ratio"] < 0.5 and facts["params"]["schedule"] == "skip"
    with Image.open(overlay) as drawn:
        assert drawn.width > 2 * drawn.height  # the image, importance, regions


def test_a_composition_says_what_each_stage_left(cli: Cli, picture: Path) -> None:
    both = ("--method", "evoprune+clse", "--keep", "0.5,64", "--param", "clse.cutoff=0.2")
    facts = cli("run", picture, *ASK, *both, "--json").json
    assert [(s["before"], s["after"]) for s in facts["stages"]] == [(576, 288), (288, 64)]
    assert facts["params"]["clse"]["cutoff"] == 0.2 and facts["params"]["evoprune"]["keep"] == 0.5
    text = cli("run", picture, *ASK, *both).out
    assert "evoprune in the vision tower: 576 -> 288" in text
    assert "clse at decoder layer 1: 288 -> 64" in text


@pytest.mark.parametrize("method", ["evoprune", "evoprune+clse"])
def test_an_image_and_a_video_on_qwen(
    cli: Cli, qwen_folder: Path, picture: Path, tmp_path: Path, method: str
) -> None:
    frames = [tmp_path / f"frame{number}.png" for number in range(4)]
    for number, path in enumerate(frames):
        Image.new("RGB", (64, 48), (60 * number, 10, 200)).save(path)
    videos = [argument for path in frames for argument in ("--video", path)]
    keep = {"evoprune": "0.5", "evoprune+clse": "0.5,10"}[method]
    overlay = tmp_path / "kept.png"
    facts = cli(
        *("run", picture, *videos, "--model", qwen_folder, "--prompt", "what moves ?"),
        *("--method", method, "--keep", keep, "--max-new-tokens", 1),
        *("--source-fps", 2, "--save-overlay", overlay, "--json"),
    ).json
    whole = 100 + 2 * 48  # the image, and two slices of the video
    assert facts["tokens"]["original"] == whole
    assert facts["stages"][0]["after"] == whole / 2
    assert facts["tokens"]["kept"] == (whole / 2 if method == "evoprune" else 20)
    assert facts["flops"]["encoder_ratio"] < 1 and overlay.exists()
