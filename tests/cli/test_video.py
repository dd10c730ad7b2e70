"""``prunus run`` on a saved Qwen2.5-VL: images of any size, videos, and both in one prompt."""

from __future__ import annotations

import builtins
import io
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import prunus
from prunus.errors import PrunusError
from prunus.inference.inputs import placed, process
from prunus.inference.prompts import arrange, build_prompt
from prunus.inference.sampling import Sampling
from prunus.inference.videos import open_videos
from prunus.tasks.evalset.videos import load_video_evalset
from tests.support.clips import write_video
from tests.support.command_line import Cli
from tests.support.families import QWEN2_VL, QWEN3_VL, Kind
from tests.support.kinds.internvl import INTERNVL
from tests.support.kinds.kimi_k25 import KIMI_K25
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
    [video] = open_videos(paths, Sampling(fps=fps, most=most))
    levels = [round(np.asarray(frame)[20:28, 28:36].mean() / 40) for frame in video.frames]
    return levels, video.fps


def test_frames_are_taken_evenly(clip: Path) -> None:
    assert greys([clip], 1.0, 64) == ([0, 1, 2, 3, 4, 5], 1.0)
    assert greys([clip], 2.0, 64) == ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], 2.0)
    assert greys([clip], 2.0, 6) == ([0, 1, 2, 3, 4, 5], 1.0)  # at half the rate, to the end
    assert greys([clip], 1.0, 4) == ([0, 2, 4], 0.5)
    assert greys([clip], 100.0, 64) == ([s for s in range(SECONDS) for _ in range(RATE)], 10.0)
    assert greys([clip], 1.0, 1)[0] == [0]


def test_a_video_file(cli: Cli, qwen_folder: Path, clip: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "kept.png"
    result = cli(
        *("run", "--model", qwen_folder, "--video", clip, "--prompt", "what moves ?"),
        *("--keep", 9, "--max-new-tokens", 2, "--save-overlay", overlay, "--json"),
    )
    assert result.code == 0, result.err
    facts = result.json
    [video] = facts["videos"]
    assert (video["source"], video["frames"], video["fps"]) == (str(clip), 12, 2.0)
    assert video["times"] == [number / 2 for number in range(12)] and video["seconds"] == 6.0
    assert video["numbers"] == [5 * number for number in range(12)] and facts["images"] == []
    assert [part["times"] for part in video["slices"]] == [[n, n + 0.5] for n in range(6)]
    assert sum(part["kept"] for part in video["slices"]) == 9
    assert {part["of"] for part in video["slices"]} == {6 * 8}
    assert facts["tokens"]["original"] == 6 * 6 * 8 and facts["tokens"]["kept"] == 9
    with Image.open(overlay) as drawn:
        assert drawn.width > 2 * drawn.height  # eight frames in a row, two rows, layers below


@pytest.mark.parametrize("kind", [QWEN2_VL, QWEN3_VL], ids=lambda kind: kind.name)
def test_families_with_videos(kind: Kind, cli: Cli, tmp_path: Path, clip: Path) -> None:
    kind.save(tmp_path / "model")
    common = ("run", "--model", tmp_path / "model", "--prompt", "what ?", "--max-new-tokens", 2)
    asked = (*common, "--video", clip, "--frames", 5, "--start", 1, "--end", 6, "--json")
    facts = cli(*asked, "--keep", 0.5, "--save-animation", tmp_path / "kept.gif").json
    [video] = facts["videos"]
    assert video["numbers"] == [10, 20, 30, 40, 50] and video["times"] == [1, 2, 3, 4, 5]
    assert [part["times"] for part in video["slices"]] == [[1, 2], [3, 4], [5]]
    assert sum(part["kept"] for part in video["slices"]) == facts["tokens"]["kept"]
    assert sum(part["of"] for part in video["slices"]) == facts["tokens"]["original"]
    assert facts["tokens"]["kept"] == facts["tokens"]["original"] // 2
    with Image.open(tmp_path / "kept.gif") as animation:
        assert animation.n_frames == 5
    dense, whole = cli(*asked, "--method", "none"), cli(*asked, "--keep", "1.0")
    assert dense.json["answer"] == whole.json["answer"]


@pytest.mark.parametrize(
    ("kind", "slices"),
    [(INTERNVL, [1, 1, 1, 1, 1]), (KIMI_K25, [4, 1])],
    ids=["internvl", "kimi-k2.5"],
)
def test_families_that_make_several_inputs_of_a_video(
    kind: Kind, slices: list[int], cli: Cli, tmp_path: Path, clip: Path, picture: Path
) -> None:
    """Frames, or clips of a few, each with its own budget; an image and another video beside."""
    kind.save(tmp_path / "model")
    facts = cli(
        *("run", picture, "--model", tmp_path / "model", "--max-new-tokens", 1, "--json"),
        *("--prompt", "<video> or <image> or <video> ?", "--method", "uniform", "--keep", 0.5),
        *("--video", clip, "--video", "builtin:0", "--frames", 5),
        *("--save-animation", tmp_path / "kept.gif", "--save-overlay", tmp_path / "kept.png"),
    ).json
    first, second = facts["videos"]
    assert [len(part["times"]) for part in first["slices"]] == slices
    assert [len(part["times"]) for part in second["slices"]] == slices
    for video in (first, second):
        assert [time for part in video["slices"] for time in part["times"]] == video["times"]
        assert all(part["kept"] == part["of"] // 2 for part in video["slices"])
    assert first["source"] == str(clip) and second["source"] == "builtin:0"
    with Image.open(tmp_path / "kept.gif") as animation:
        assert animation.n_frames == 10
    with Image.open(tmp_path / "kept.png") as drawn:
        assert drawn.height > drawn.width / 2  # the image's row, one for each video, layers below


def test_a_built_in_video(cli: Cli, tmp_path: Path) -> None:
    sheet, animation = tmp_path / "new" / "sheet.png", tmp_path / "new" / "kept.webp"
    item = load_video_evalset()[3]
    question = item.questions[0]
    common = ("run", "--model", "tiny-qwen", "--video", "builtin:3", "--prompt", question.text)
    said = cli(*common, "--method", "none").out
    assert said.startswith(f"{question.answer}\n")
    result = cli(
        *(*common, "--method", "uniform", "--keep", 0.25, "--max-new-tokens", 1),
        *("--save-overlay", sheet, "--save-animation", animation),
    )
    assert result.code == 0, result.err
    assert "8 frames, 2 per second, 0.0 s to 3.5 s of 4.0 s: builtin:3" in result.out
    assert str(sheet) in result.out and str(animation) in result.out
    with Image.open(sheet) as drawn:
        assert drawn.width > 3 * drawn.height  # eight square frames in a row, layers below
    with Image.open(animation) as moving:
        assert moving.n_frames == 8


def test_a_folder_and_an_animation(
    cli: Cli, qwen_folder: Path, frames: list[Path], tmp_path: Path
) -> None:
    common = ("run", "--model", qwen_folder, "--prompt", "what ?", "--max-new-tokens", 1, "--json")
    rated = ("--source-fps", 2, "--fps", 2)
    listed = [argument for path in frames for argument in ("--video", path)]
    [folder] = cli(*common, "--video", frames[0].parent, *rated).json["videos"]
    [named] = cli(*common, *listed, *rated).json["videos"]
    assert folder["source"] == str(frames[0].parent) and folder["frames"] == 3
    assert {**folder, "source": ""} == {**named, "source": ""}
    pictures = [Image.open(path) for path in frames]
    moving = tmp_path / "moving.gif"
    pictures[0].save(moving, save_all=True, append_images=pictures[1:], duration=500)
    [animation] = cli(*common, "--video", moving).json["videos"]
    assert {**animation, "source": ""} == {**named, "source": ""}  # the very same tokens are kept


def test_what_is_read_is_shown_while_it_is_read(
    cli: Cli, qwen_folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        "prunus.cli.console.err", lambda: Console(file=screen, force_terminal=True, width=80)
    )
    common = ("run", "--model", qwen_folder, "--prompt", "what ?", "--max-new-tokens", 1)
    assert cli(*common, "--video", clip, "--frames", 7).code == 0
    assert "looking through" in screen.getvalue()
    assert re.search(r"reading frames.*7/7", screen.getvalue())


def test_frames_and_an_image_where_the_prompt_has_them(
    cli: Cli, qwen_folder: Path, frames: list[Path], picture: Path, tmp_path: Path
) -> None:
    overlay = tmp_path / "kept.png"
    arguments = [argument for path in frames for argument in ("--video", path)]
    facts = cli(
        *("run", picture, *arguments, "--model", qwen_folder, "--source-fps", 4),
        *("--prompt", "in <video> what is <image> ?", "--keep", 0.25),
        *("--max-new-tokens", 1, "--save-overlay", overlay, "--json"),
    ).json
    [video] = facts["videos"]
    assert (video["frames"], video["fps"], video["times"]) == (3, 4.0, [0.0, 0.25, 0.5])
    assert [part["times"] for part in video["slices"]] == [[0.0, 0.25], [0.5]]
    assert facts["tokens"]["original"] == 2 * 6 * 8 + 100
    assert facts["tokens"]["kept"] == 2 * 6 * 8 // 4 + 100 // 4
    with Image.open(overlay) as drawn:
        rows = drawn.height / drawn.width * 3
    assert 2 < rows < 3.3  # title, the image's row, that of the frames, layers, and a key


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
    refused("no such video", "x", "--video", tmp_path / ("long" * 100))
    (tmp_path / "text.mp4").write_text("not a video")
    refused("cannot read the video", "x", "--video", tmp_path / "text.mp4")
    refused("not both", "x", "--video", clip, "--video", frames[0])
    refused("nothing to look at", "x")
    refused("1 <image> placeholder but 0 images are given", "<image> x", "--video", clip)
    refused("0 <video> placeholders but 1 video is given", "<image> x", picture, "--video", clip)
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    small = ("--video", frames[0], "--video", tmp_path / "small.png")
    refused("--source-fps", "x", *small)
    refused("10x10, 64x48", "x", *small, "--source-fps", 1)
    refused("leave out --fps", "x", "--video", clip, "--fps", 1, "--frames", 3)
    refused("give 60 or fewer", "x", "--video", clip, "--frames", 61)
    refused("begin earlier", "x", "--video", clip, "--start", 6)
    refused("give an end behind the start", "x", "--video", clip, "--start", 3, "--end", 2)
    refused("leave it out", "x", "--video", clip, "--source-fps", 3)
    refused("--source-fps", "x", "--video", frames[0].parent)
    refused("builtin:119", "x", "--video", "builtin:120")
    for name, value in (
        *(("--fps", 1), ("--frames", 3), ("--max-frames", 3), ("--start", 1), ("--end", 2)),
        *(("--source-fps", 2), ("--save-animation", tmp_path / "a.gif")),
    ):
        refused(f"{name} is about videos: give one with --video", "x", picture, name, value)
    refused(".gif or .webp", "x", "--video", clip, "--save-animation", tmp_path / "a.mp4")
    long = write_video(tmp_path / "long.mp4", 769, 30)
    refused("this model takes 768 at most", "x", "--video", long, "--frames", 769)
    llava = cli("run", "--prompt", "x", "--video", clip)
    assert llava.code == 2 and "takes images only" in llava.err


def test_nothing_is_read_or_asked_where_pictures_cannot_be_written(
    cli: Cli, clip: Path, frames: list[Path], picture: Path, tmp_path: Path
) -> None:
    common = ("run", "--model", tmp_path / "no model", "--prompt", "x")
    (tmp_path / "link.png").symlink_to(picture)
    before = picture.read_bytes()
    for words, *arguments in (
        ("would replace what is looked at", picture, "--save-overlay", picture),
        ("would replace what is looked at", picture, "--save-overlay", tmp_path / "link.png"),
        ("would replace what is looked at", "--video", frames[1], "--save-overlay", frames[1]),
        ("among the frames", "--video", tmp_path, "--save-animation", tmp_path / "a.gif"),
        ("is no folder", picture, "--save-overlay", picture / "a.png"),
        ("it is a folder", "--video", clip, "--save-animation", tmp_path / "folder.gif"),
    ):
        (tmp_path / "folder.gif").mkdir(exist_ok=True)
        result = cli(*common, *arguments)
        assert result.code == 2 and words in result.err, result.err
    assert picture.read_bytes() == before and not (tmp_path / "a.gif").exists()


def test_times_of_frames_keep_their_precision(qwen_folder: Path, frames: list[Path]) -> None:
    model, processor = prunus.load(qwen_folder, dtype="bfloat16")
    videos = open_videos(frames, Sampling(source_fps=3.0))
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
    with pytest.raises(PrunusError, match="PyAV: pip install av, or give its frames"):
        open_videos([clip], Sampling())
    assert len(open_videos(frames, Sampling(source_fps=1))[0].frames) == 3


def test_the_order_of_images_and_videos() -> None:
    assert arrange("what ?", 2, 1) == ["image", "image", "video"]
    assert arrange("<video> or <image> ?", 1, 1) == ["video", "image"]
    with pytest.raises(PrunusError, match="2 <video> placeholders but 1 video is given"):
        arrange("<video> <video>", 0, 1)
