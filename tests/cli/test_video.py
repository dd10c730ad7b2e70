"""``prunus run`` on a saved Qwen2.5-VL: images of any size, videos, and both in one prompt."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

import prunus
from prunus.errors import PrunusError
from prunus.inference.inputs import placed, process
from prunus.inference.prompts import arrange, build_prompt
from prunus.inference.videos import open_videos
from tests.support.command_line import Cli
from tests.support.qwen_processor import save_qwen

RATE, SECONDS = 10, 6


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_qwen(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds; the second ``s`` is a grey of ``40 * s``."""
    path = tmp_path_factory.mktemp("clip") / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(RATE * SECONDS):
            pixels = np.full((48, 64, 3), 40 * (number // RATE), dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"frame{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 48), (80 * number, 10, 200)).save(path)
    return paths


def greys(paths: list[Path], fps: float, most: int) -> tuple[list[int], float]:
    [video] = open_videos(paths, fps, most)
    levels = [round(np.asarray(frame)[20:28, 28:36].mean() / 40) for frame in video.frames]
    return levels, video.fps


def test_frames_are_taken_evenly(clip: Path) -> None:
    assert greys([clip], 1.0, 64) == ([0, 1, 2, 3, 4, 5], 1.0)
    assert greys([clip], 2.0, 64) == ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], 2.0)
    assert greys([clip], 2.0, 6) == ([0, 1, 2, 3, 4, 5], 1.0)  # at half the rate, to the end
    assert greys([clip], 1.0, 4) == ([0, 2, 4], 0.5)
    assert greys([clip], 100.0, 64)[0] == [s for s in range(SECONDS) for _ in range(RATE)]
    assert greys([clip], 1.0, 1)[0] == [0]


def test_a_video_file(cli: Cli, qwen_folder: Path, clip: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "kept.png"
    result = cli(
        *("run", "--model", qwen_folder, "--video", clip, "--prompt", "what moves ?"),
        *("--keep", 9, "--max-new-tokens", 2, "--save-overlay", overlay, "--json"),
    )
    assert result.code == 0, result.err
    facts = result.json
    assert facts["videos"] == [{"frames": 12, "fps": 2.0}] and facts["images"] == []
    assert facts["tokens"]["original"] == 6 * 6 * 8 and facts["tokens"]["kept"] == 9
    with Image.open(overlay) as drawn:
        assert drawn.height > 1.5 * drawn.width  # six rows of three: one for each temporal slice


def test_frames_and_an_image_where_the_prompt_has_them(
    cli: Cli, qwen_folder: Path, frames: list[Path], picture: Path, tmp_path: Path
) -> None:
    overlay = tmp_path / "kept.png"
    arguments = [argument for path in frames for argument in ("--video", path)]
    facts = cli(
        *("run", picture, *arguments, "--model", qwen_folder, "--fps", 4),
        *("--prompt", "in <video> what is <image> ?", "--keep", 0.25),
        *("--max-new-tokens", 1, "--save-overlay", overlay, "--json"),
    ).json
    assert facts["videos"] == [{"frames": 3, "fps": 4.0}]
    assert facts["tokens"]["original"] == 2 * 6 * 8 + 100
    assert facts["tokens"]["kept"] == 2 * 6 * 8 // 4 + 100 // 4
    with Image.open(overlay) as drawn:
        rows = drawn.height / drawn.width * 3
    assert 2.8 < rows < 4  # two slices and the image


def test_an_image_on_the_unmodified_model(cli: Cli, qwen_folder: Path, picture: Path) -> None:
    common = ("run", picture, "--model", qwen_folder, "--prompt", "what ?", "--json")
    dense = cli(*common, "--method", "none", "--max-new-tokens", 3).json
    assert dense["tokens"]["kept"] == dense["tokens"]["original"] == 100
    everything = cli(*common, "--keep", "1.0", "--max-new-tokens", 3).json
    assert everything["answer"] == dense["answer"]
    assert everything["flops"]["dense"] == dense["flops"]["dense"]
    assert everything["kv_bytes"]["dense"] == dense["kv_bytes"]["dense"]


def test_bad_videos(
    cli: Cli, qwen_folder: Path, clip: Path, frames: list[Path], tmp_path: Path, picture: Path
) -> None:
    common = ("run", "--model", qwen_folder, "--prompt")

    def refused(words: str, *arguments: object) -> None:
        result = cli(*common, *arguments)
        assert result.code == 2 and result.out == ""
        assert result.err.startswith("error: ") and words in result.err

    refused("no such video", "x", "--video", tmp_path / "gone.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    refused("cannot read the video", "x", "--video", tmp_path / "text.mp4")
    refused("not both", "x", "--video", clip, "--video", frames[0])
    refused("nothing to look at", "x")
    refused("1 <image> placeholder but 0 images are given", "<image> x", "--video", clip)
    refused("0 <video> placeholders but 1 video is given", "<image> x", picture, "--video", clip)
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    small = ("--video", frames[0], "--video", tmp_path / "small.png")
    refused("one size, these have 10x10, 64x48", "x", *small)
    llava = cli("run", "--prompt", "x", "--video", clip)
    assert llava.code == 2 and "takes images only" in llava.err


def test_times_of_frames_keep_their_precision(qwen_folder: Path, frames: list[Path]) -> None:
    model, processor = prunus.load(qwen_folder, dtype="bfloat16")
    videos = open_videos(frames, 3.0, 8)
    encoded = process(processor, build_prompt(processor, "what ?", 0, 1), [], videos)
    inputs = placed(encoded, model.device, model.dtype)
    assert inputs["pixel_values_videos"].dtype == torch.bfloat16
    assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 / 3], abs=1e-6)


def test_without_pyav(clip: Path, frames: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PrunusError, match=r"PyAV: pip install 'prunus\[video\]'"):
        open_videos([clip], 1.0, 8)
    assert len(open_videos(frames, 1.0, 8)[0].frames) == 3  # pictures need no decoder


def test_the_order_of_images_and_videos() -> None:
    assert arrange("what ?", 2, 1) == ["image", "image", "video"]
    assert arrange("<video> or <image> ?", 1, 1) == ["video", "image"]
    with pytest.raises(PrunusError, match="2 <video> placeholders but 1 video is given"):
        arrange("<video> <video>", 0, 1)
