"""The fixed set of videos: unseen ones with unseen handwritten digits, drawn on the fly."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from importlib.resources import files

from prunus.tasks.evalset import SEED, even_questions
from prunus.tasks.questions import Question
from prunus.tasks.video_questions import VIDEO_TYPES, ask_video
from prunus.tasks.videos import VideoScene, make_video

_PER_TYPE = 120


@dataclass(frozen=True)
class VideoItem:
    """A video and the questions asked about it."""

    scene: VideoScene
    questions: tuple[Question, ...]

    def to_json(self) -> str:
        """One JSON line."""
        rows = [list(astuple(question)) for question in self.questions]
        video = json.loads(self.scene.to_json())
        return json.dumps({"video": video, "questions": rows}, separators=(",", ":"))

    @staticmethod
    def from_json(line: str) -> VideoItem:
        """Inverse of :meth:`to_json`."""
        raw = json.loads(line)
        questions = tuple(Question(t, q, a, tuple(o)) for t, q, a, o in raw["questions"])
        return VideoItem(VideoScene.from_json(json.dumps(raw["video"])), questions)


def load_video_evalset() -> list[VideoItem]:
    """The 120 videos and 720 questions that reports are about."""
    text = files("prunus.tasks.evalset").joinpath("videos.jsonl").read_text("utf-8")
    return [VideoItem.from_json(line) for line in text.splitlines()]


def build_video_evalset(videos: int = 120) -> list[VideoItem]:
    """Draw the set anew; always the same. Answers of each type are kept as even as they go."""
    drawn = [make_video(SEED + number, "test") for number in range(videos)]
    asked = even_questions(drawn, tuple(VIDEO_TYPES), ask_video, _PER_TYPE)
    return [VideoItem(video, tuple(q)) for video, q in zip(drawn, asked, strict=True)]
