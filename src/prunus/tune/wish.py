"""What is looked for: plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunus.method.budget import Keep
from prunus.tune.goal import Goal


@dataclass(frozen=True)
class Wish:
    """What is looked for.

    Attributes:
        model: as of :func:`prunus.load`.
        data: a file of JSON lines, see :func:`~prunus.tune.questions.read_questions`.
        goal: what is wanted.
        methods, keeps: what may be the answer.
        share: of the images that are held out.
        limit: only so many questions.
        rounds: of timing, of each candidate; 0: FLOPs take the place of time.
        new_tokens: longest answer, where none are given.
        batch: questions at a time.
        skip: leave out questions that cannot be asked; otherwise the first ends all.
    """

    model: str
    data: Path
    goal: Goal
    methods: Sequence[str]
    keeps: Sequence[Keep]
    share: float = 0.5
    limit: int | None = None
    rounds: int = 3
    new_tokens: int = 32
    batch: int = 32
    skip: bool = False
    dtype: str = "auto"
    device: str = "cpu"
