"""Frames of videos are drawn as the model saw them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from prunus.inference.inputs import process
from prunus.inference.prompts import render
from prunus.tasks.sets import Clip
from prunus.viz.as_seen import frames_as_seen
from tests.support.families import QWEN3_VL
from tests.support.kinds.video_llava import VIDEO_LLAVA
from tests.support.matrix import load


def wide(number: int) -> Image.Image:
    """Blue, green in the middle third, red at the right edge, which a crop to a square loses."""
    frame = Image.new("RGB", (96, 32), (0, 0, 255 - number))
    frame.paste((0, 255, 0), (32, 0, 64, 32))
    frame.paste((255, 0, 0), (80, 0, 96, 32))
    return frame


def test_what_a_processor_crops_is_not_drawn() -> None:
    frames = tuple(wide(number) for number in range(8))
    _, processor = load(VIDEO_LLAVA)
    prompt = render(processor, "what happens?", ["video"])
    encoded = process(processor, prompt, videos=[Clip(frames, 2.0)])
    [seen] = frames_as_seen(processor, encoded, [frames])
    assert len(seen) == len(frames)
    for frame in seen:
        colours = np.asarray(frame).reshape(-1, 3).astype(int)
        assert frame.size == (32, 32)
        assert (colours[:, 1] > 250).mean() > 0.9 and (colours[:, 0] < 5).all()


def test_frames_that_are_only_resized_stay_as_they_are() -> None:
    frames = tuple(wide(number) for number in range(4))
    _, processor = load(QWEN3_VL)
    prompt = render(processor, "what happens?", ["video"])
    encoded = process(processor, prompt, videos=[Clip(frames, 2.0)])
    [seen] = frames_as_seen(processor, encoded, [frames])
    assert list(seen) == list(frames)
