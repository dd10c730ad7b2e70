"""The fixed evaluation set: unseen scenes with unseen handwritten digits, drawn on the fly."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from importlib.resources import files
from typing import TypeVar

import numpy as np

from prunus.tasks.questions import TYPES, Question, ask
from prunus.tasks.scenes import Scene, make_scene

T = TypeVar("T")

#: Seeds far from those that training uses (below 1e8, and from 1e9 on).
SEED = 500_000_000
_PER_TYPE = 320


@dataclass(frozen=True)
class Item:
    """A scene and the questions asked about it."""

    scene: Scene
    questions: tuple[Question, ...]

    def to_json(self) -> str:
        """One JSON line."""
        rows = [list(astuple(question)) for question in self.questions]
        scene = json.loads(self.scene.to_json())
        return json.dumps({"scene": scene, "questions": rows}, separators=(",", ":"))

    @staticmethod
    def from_json(line: str) -> Item:
        """Inverse of :meth:`to_json`."""
        raw = json.loads(line)
        questions = tuple(Question(t, q, a, tuple(o)) for t, q, a, o in raw["questions"])
        return Item(Scene.from_json(json.dumps(raw["scene"])), questions)


def load_evalset() -> list[Item]:
    """The 500 scenes and 2,240 questions that reports are about."""
    text = files("prunus.tasks.evalset").joinpath("tiny-llava.jsonl").read_text("utf-8")
    return [Item.from_json(line) for line in text.splitlines()]


def build_evalset(scenes: int = 500) -> list[Item]:
    """Draw the set anew; always the same. Answers of each type are kept as even as they go."""
    drawn = [make_scene(SEED + number, "test") for number in range(scenes)]
    asked = even_questions(drawn, tuple(TYPES), ask, _PER_TYPE)
    return [Item(scene, tuple(q)) for scene, q in zip(drawn, asked, strict=True)]


def even_questions(
    drawn: Sequence[T],
    kinds: Sequence[str],
    ask: Callable[[T, str, np.random.Generator], Question | None],
    per_type: int,
    seed: int = SEED,
) -> list[list[Question]]:
    """For each scene the questions about it; ``per_type`` of each kind in all, their answers as
    even as they go."""
    asked: list[list[Question]] = [[] for _ in drawn]
    for place, kind in enumerate(kinds):
        rng = np.random.default_rng([seed, place])
        pool = [
            (number, question)
            for number, scene in enumerate(drawn)
            for _ in range(6)
            if (question := ask(scene, kind, rng)) is not None
        ]
        pool = [pool[i] for i in rng.permutation(len(pool))]
        answers: Counter[str] = Counter()
        used: Counter[int] = Counter()
        for _ in range(per_type):
            # rarest answer so far first, then the scene that was asked least
            best = min(pool, key=lambda pair: (answers[pair[1].answer], used[pair[0]]))
            number, question = best
            pool = [p for p in pool if p[0] != number or p[1].text != question.text]
            asked[number].append(question)
            answers[question.answer] += 1
            used[number] += 1
    return asked
