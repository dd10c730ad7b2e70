"""A small comparison, and somebody who watches it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.compare.comparing import compare
from prunus.compare.contract import Comparison
from prunus.compare.setting import RunSpec, Setting
from prunus.io.claim import claim


@dataclass
class Listener:
    """Counts steps by stage; after ``stop`` answers it is interrupted."""

    stop: int | None = None
    stages: list[tuple[str, int]] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    known: int = 0

    def stage(self, name: str, total: int, known: int = 0) -> None:
        self.stages.append((name, total))
        self.known = known
        self.steps[name] = 0

    def step(self, count: int) -> None:
        name = self.stages[-1][0]
        self.steps[name] += count
        if self.stop is not None and self.steps.get("answers", 0) >= self.stop:
            raise KeyboardInterrupt

    def say(self, line: str) -> None:
        self.lines.append(line)

    @property
    def asked(self) -> int:
        """Questions that were asked or left, all columns together."""
        return dict(self.stages).get("answers", 0)


Runner = Callable[..., Comparison]

SMALL = Setting(
    (RunSpec("tiny-llava", "scenes"),),
    ("divprune", "random", "fastv"),
    (0.2,),
    seeds=(0, 1),
    rival="divprune",
    limit=7,
    part=1,  # so that there are several parts: the first two images have seven questions
    batch=3,
    pictures=1,
    rounds=2,
)


def run(
    setting: Setting, place: Path, listener: Listener | None = None, workers: int = 1
) -> Comparison:
    with claim(place):
        return compare(setting, place, listener or Listener(), workers=workers)


def same(comparison: Comparison) -> dict[str, Any]:
    """What must not depend on how it was made: all but times and dates."""
    found: Any = copy.deepcopy(dict(comparison))
    del found["made"]
    for one in found["runs"]:
        for row in one["rows"]:
            if "cost" in row:
                row["cost"]["time"] = None
    return found
