"""What there is to ask about without a file of one's own: scenes and videos that prunus draws, and
photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image

from prunus.builtin import knows_drawings
from prunus.inference.pictures import is_drawn
from prunus.tasks.drawn import DrawnVideo, drawn_image
from prunus.tasks.evalset import load_evalset
from prunus.tasks.evalset.videos import load_video_evalset
from prunus.tasks.photographs import BUILTIN, PHOTOGRAPHS, photograph
from prunus.web.source import Source

_IMAGES, _VIDEOS = range(6), range(4)


@dataclass(frozen=True)
class Sample:
    """Something to ask about, its thumbnail, and questions with their true answers (None: nobody
    wrote it down)."""

    source: Source
    thumbnail: Image.Image
    questions: Sequence[tuple[str, str | None]]

    @property
    def caption(self) -> str:
        """Of its thumbnail."""
        return "video" if self.source.kind == "video" else ""


@cache
def samples(videos: bool) -> tuple[Sample, ...]:
    """The samples; ``videos``: some of these as well."""
    found = []
    scenes = load_evalset()
    for number in _IMAGES:
        name, asked = f"{BUILTIN}{number}", scenes[number].questions
        pairs = [(question.text, question.answer) for question in asked]
        found.append(Sample(Source("image", (name,)), drawn_image(name), pairs))
    for name, texts in PHOTOGRAPHS.items():
        known = [(text, None) for text in texts]
        found.append(Sample(Source("image", (name,)), photograph(name), known))
    clips = load_video_evalset() if videos else []
    for number in _VIDEOS if videos else ():
        name, asked = f"{BUILTIN}{number}", clips[number].questions
        pairs = [(question.text, question.answer) for question in asked]
        [frame] = DrawnVideo(name).read([0])
        found.append(Sample(Source("video", (name,)), frame, pairs))
    return tuple(found)


def truth(source: Source, question: str) -> str | None:
    """The true answer, where it is a sample's own question."""
    for sample in samples(source.kind == "video"):
        if sample.source == source:
            return dict(sample.questions).get(question)
    return None


def known_of(model: str, source: Source, question: str) -> str:
    """What is known of the answer before it is given: the true one, or that ``model`` is one of the
    built-in models, which know drawings only; "" if nothing."""
    right = truth(source, question)
    if right is not None:
        return f"True answer: {right}"
    if source.kind == "video" or all(is_drawn(file) for file in source.files):
        return ""
    return knows_drawings(model, [])
