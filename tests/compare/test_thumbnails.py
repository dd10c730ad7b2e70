"""Small pictures beside answers that changed."""

import base64
import copy
import io
from pathlib import Path

import pytest
from PIL import Image

from prunus.compare import thumbnails as module
from prunus.compare.contract import Comparison, Run
from prunus.compare.thumbnails import illustrated, small, thumbnails
from prunus.tasks.sets import Clip, load_builtin_set

Made = tuple[Comparison, Path]


def asking(images: list[int], **right: str) -> Run:
    """A run that asked one question about each of ``images``."""
    questions = [{"image": image, "type": "t", "text": "?", "answer": "a"} for image in images]
    dense = {"key": "dense"}
    return {"dense": dense, "questions_list": questions, "right": right}  # type: ignore


def picture(number: int) -> Image.Image:
    return Image.new("RGB", (300, 200), (number, 0, 0))


def test_every_image_whose_answer_changed_has_one() -> None:
    run = asking([4, 7, 7, 9, 11], dense="11101", a="11001", b="10011")
    assert list(thumbnails(run, picture)) == ["7", "9"]
    with Image.open(io.BytesIO(base64.b64decode(small(picture(7)).partition(",")[2]))) as image:
        assert image.size == (152, 101) and image.format == "WEBP"
    frames = (picture(1), picture(200), picture(3))
    assert small(Clip(frames, 2.0)) == small(frames[1])


def test_those_that_changed_most_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    run = asking([1, 2, 3], dense="111", a="011", b="001", c="000")
    monkeypatch.setattr(module, "MOST", 2)
    assert list(thumbnails(run, picture)) == ["1", "2"]
    monkeypatch.setattr(module, "MOST_BYTES", len(small(picture(1))) + 10)
    assert list(thumbnails(run, picture)) == ["1"]


def test_built_in_ones_are_drawn_anew(made: Made) -> None:
    """For a comparison that was written without them."""
    data = load_builtin_set()
    [run] = made[0]["runs"]
    assert run["thumbnails"] == thumbnails(run, data.seen)
    bare = copy.deepcopy(made[0])
    del bare["runs"][0]["thumbnails"]
    assert illustrated(bare) == made[0]
    bare["runs"][0]["questions_list"][0]["text"] = "another?"
    assert "thumbnails" not in illustrated(bare)["runs"][0]
    bare["runs"][0]["set"] = "mine"
    assert illustrated(bare) == bare
