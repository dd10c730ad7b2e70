"""A small search, and somebody who watches it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prunus.io.claim import claim
from prunus.tune import Wish, tune
from prunus.tune.contract import Tuned
from prunus.tune.goal import Goal
from prunus.tune.questions import draw_questions


@dataclass
class Listener:
    """Counts answers; after ``stop`` of them it is interrupted."""

    stop: int | None = None
    answers: int = 0
    lines: list[str] = field(default_factory=list)
    name: str = ""

    def stage(self, name: str, total: int, known: int = 0) -> None:
        self.name = name

    def step(self, count: int) -> None:
        if self.name.startswith("answers"):
            self.answers += count
            if self.stop is not None and self.answers >= self.stop:
                raise KeyboardInterrupt

    def say(self, line: str) -> None:
        self.lines.append(line)


def questions(folder: Path) -> Path:
    """A file of 14 questions about drawn scenes."""
    return draw_questions("tuning-scenes", folder, scenes=8, per_type=2)


def wish(data: Path, goal: Goal, **more: object) -> Wish:
    """Wants ``goal`` of two methods at two budgets."""
    given: dict[str, object] = {
        "methods": ("fastervlm", "divprune"), "keeps": (0.4, 4), "rounds": 0, "batch": 8, **more,
    }  # fmt: skip
    return Wish("tiny-llava", data, goal, **given)  # type: ignore[arg-type]


def run(what: Wish, folder: Path, listener: Listener | None = None, workers: int = 1) -> Tuned:
    with claim(folder), claim(folder / "store"):
        return tune(what, folder, folder / "store", listener or Listener(), workers=workers)
