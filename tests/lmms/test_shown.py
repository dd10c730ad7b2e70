"""What tasks show, in all forms, and the prompts that come of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunus.builtin import load_builtin
from prunus.errors import PrunusError
from prunus.inference.prompts import build_prompt
from prunus.inference.sampling import Sampling
from prunus.inference.turns import Turn, converse
from prunus.lmms.media import question_of, seen_of, turn_of
from prunus.tasks.sets import Clip, load_builtin_set

RED = Image.new("RGB", (8, 6), "red")


@pytest.fixture(scope="module", params=["tiny-llava", "tiny-qwen"])
def processor(request: pytest.FixtureRequest) -> Any:
    return load_builtin(request.param)[1]


def test_pictures_come_in_many_forms(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    RED.save(path)
    content = io.BytesIO()
    RED.save(content, "PNG")
    forms = [RED, str(path), {"bytes": content.getvalue()}, np.asarray(RED)]
    for form in [*forms, {"type": "image", "url": RED}, RED.convert("P")]:
        seen = seen_of(form, Sampling())
        assert isinstance(seen, Image.Image) and seen.mode == "RGB"
        assert seen.size == RED.size and seen.getpixel((0, 0)) == (255, 0, 0)


def test_videos_are_files_frames_or_parts() -> None:
    whole = seen_of("builtin:3", Sampling(frames=4))
    assert isinstance(whole, Clip) and len(whole.frames) == 4
    same = load_builtin_set("videos").seen(3)
    assert isinstance(same, Clip)
    every = seen_of("builtin:3", Sampling())
    assert isinstance(every, Clip) and every.fps == same.fps
    assert [f.tobytes() for f in every.frames] == [f.tobytes() for f in same.frames]
    given = {"type": "video", "url": "builtin:3", "video_start": 1, "end_time": 2}
    part = seen_of(given, Sampling())
    assert isinstance(part, Clip) and part.start == 1 and 0 < len(part.frames) < len(every.frames)
    frames = seen_of([RED, RED], Sampling(fps=1))
    assert isinstance(frames, Clip) and frames.fps == 1 and len(frames.frames) == 2


@pytest.mark.parametrize("content", [[{"type": "audio", "url": "x.wav"}], [{"type": "image"}]])
def test_what_cannot_be_shown_is_refused(content: Any) -> None:
    with pytest.raises(PrunusError, match="a task shows"):
        turn_of("user", content, Sampling())
    with pytest.raises(PrunusError, match="expected a picture"):
        seen_of(3, Sampling())


def test_one_question_is_what_every_command_asks(processor: Any) -> None:
    turn = question_of("what color is it ?", [RED], Sampling())
    found = converse(processor, [turn])
    assert found.text == build_prompt(processor, "what color is it ?", 1)
    assert [one.size for one in found.images] == [RED.size] and not found.videos


def test_pictures_stand_where_the_task_has_them(processor: Any) -> None:
    message = [{"type": "image", "url": RED}, {"type": "text", "text": "this or"}]
    message += [{"type": "image", "url": RED}, {"type": "text", "text": "that ?"}]
    found = converse(processor, [turn_of("user", message, Sampling())])
    assert found.text == build_prompt(processor, "<image>this or<image>that ?", 2)
    first, second = found.text.index("this or"), found.text.index("that ?")
    token = getattr(processor, "image_token", "<image>")
    assert found.text.index(token) < first < found.text.rindex(token) < second


def test_a_text_may_say_itself_where(processor: Any) -> None:
    found = converse(processor, [question_of("is <image> red ?", [RED], Sampling())])
    assert found.text == build_prompt(processor, "is <image> red ?", 1)
    with pytest.raises(PrunusError, match="placeholder"):
        converse(processor, [question_of("<image> or <image> ?", [RED], Sampling())])


def test_turns_in_front_are_part_of_the_prompt(processor: Any) -> None:
    turns = [
        Turn("user", [RED, "one ?"]),
        Turn("assistant", ["red"]),
        Turn("user", [RED, "two ?"]),
    ]
    found = converse(processor, turns)
    assert len(found.images) == 2
    places = [found.text.index(word) for word in ("one ?", "red", "two ?")]
    assert places == sorted(places)
    with pytest.raises(PrunusError, match="end with a question"):
        converse(processor, turns[:2])
    with pytest.raises(PrunusError, match="is empty"):
        converse(processor, [Turn("user", [" "]), *turns])


def test_a_model_without_a_template_takes_one_question(processor: Any) -> None:
    bare = type("Bare", (), {"tokenizer": processor.tokenizer, "image_token": "<image>"})()
    assert converse(bare, [Turn("user", [RED, "red ?"])]).text == "USER: <image>\nred ? ASSISTANT:"
    with pytest.raises(PrunusError, match="no chat template"):
        converse(bare, [Turn("system", ["be brief"]), Turn("user", [RED, "red ?"])])
