"""The sample of the demo: one unseen scene with three questions, drawn from its data."""

from __future__ import annotations

from importlib.resources import files

from PIL import Image

from prunus.tasks.evalset import Item
from prunus.tasks.questions import Question
from prunus.tasks.scenes import render


def load_sample() -> tuple[Image.Image, tuple[Question, ...]]:
    """The sample image (192x192 RGB) and its questions with their true answers."""
    line = files("prunus.tasks").joinpath("data/sample.json").read_text("utf-8")
    item = Item.from_json(line)
    return render(item.scene), item.questions
