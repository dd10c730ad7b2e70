"""What models are told of time is when the frames of the video are shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus.errors import PrunusError
from prunus.inference.inputs import process
from prunus.inference.prompts import build_prompt
from prunus.inference.sampling import Sampling
from prunus.inference.videos import Excerpt, open_videos
from tests.support.clips import write_video
from tests.support.families import QWEN3_VL
from tests.support.qwen_processor import save_qwen

RATE, COUNT = 24, 240  # a video of ten seconds


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", COUNT, RATE)


@pytest.fixture(scope="module")
def qwen25(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("qwen25")
    save_qwen(folder)
    return prunus.load(folder)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("qwen3")
    QWEN3_VL.save(folder)
    return prunus.load(folder)


def shown(path: Path, options: dict[str, Any]) -> Excerpt:
    [video] = open_videos([path], Sampling(**options))
    return video


OPTIONS: list[dict[str, Any]] = [
    {},
    {"fps": 1.0},
    {"fps": 4.0, "end": 5.0},
    {"fps": 1.0, "start": 2.5, "end": 8.0},
    {"frames": 5},
    {"frames": 7, "start": 1.3, "end": 9.1},
    {"fps": 99.0, "end": 0.5},
    {"fps": 0.7},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_positions_of_qwen2_5_follow_the_rate_of_the_frames(
    film: Path, qwen25: tuple[Any, Any], options: dict[str, Any]
) -> None:
    model, processor = qwen25
    video = shown(film, options)
    inputs = process(processor, build_prompt(processor, "what moves ?", 0, 1), videos=[video])
    assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 / video.fps], rel=1e-6)
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"],
        second_per_grid_ts=inputs["second_per_grid_ts"],
        attention_mask=inputs["attention_mask"],
    )
    at = inputs["mm_token_type_ids"][0] == 2
    slices = positions[0, 0, at].reshape(-(-len(video.frames) // 2), -1)
    assert (slices == slices[:, :1]).all()
    per_second = model.config.vision_config.tokens_per_second
    steps = torch.arange(len(slices)) * torch.tensor(2 / video.fps) * per_second
    assert (slices[:, 0] - slices[0, 0]).tolist() == steps.long().tolist()
    if video.fps in (1.0, 2.0, 4.0):  # whole positions: nothing is lost to rounding
        times = torch.tensor(video.times)[::2] - video.start
        assert (slices[:, 0] - slices[0, 0]).tolist() == (times * per_second).tolist()


@pytest.mark.parametrize("options", OPTIONS)
def test_timestamps_of_qwen3_are_those_of_the_video(
    film: Path, qwen3: tuple[Any, Any], options: dict[str, Any]
) -> None:
    _, processor = qwen3
    video = shown(film, options)
    inputs = process(processor, build_prompt(processor, "what moves ?", 0, 1), videos=[video])
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    said = [float(second) for second in re.findall(r"<([\d.]+) seconds>", text)]
    # a time step is two frames, the last one alone if their number is odd: the mean of both
    true = [number / RATE for number in video.numbers]
    pairs = [(true[at], true[min(at + 1, len(true) - 1)]) for at in range(0, len(true), 2)]
    means = [(first + second) / 2 for first, second in pairs]
    # to one decimal, and frames are there every 24th of a second
    assert said == pytest.approx(means, abs=0.05 + 1 / RATE)
    asked = [*video.times, video.times[-1]]
    exact = [(asked[at] + asked[at + 1]) / 2 for at in range(0, len(true), 2)]
    assert said == pytest.approx(exact, abs=0.0501)


def test_a_video_longer_than_a_model_takes(film: Path, qwen3: tuple[Any, Any]) -> None:
    _, processor = qwen3
    most, processor.video_processor.max_frames = processor.video_processor.max_frames, 6
    try:
        prompt = build_prompt(processor, "what ?", 0, 1)
        process(processor, prompt, videos=[shown(film, {"frames": 6})])
        with pytest.raises(PrunusError, match=r"7 frames: this model takes 6 at most.*--frames 6"):
            process(processor, prompt, videos=[shown(film, {"frames": 7})])
    finally:
        processor.video_processor.max_frames = most
