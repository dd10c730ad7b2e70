"""The stages that train a built-in model, in order. Resuming may change what is still to come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage. ``kind`` is ``naming`` (tower and projector) or ``answers`` (question answers).

    ``batch`` counts canvases per step. ``window`` (patches) and ``per_canvas`` belong to naming.
    For answers: ``questions`` per canvas; ``tokens`` is how many visual tokens of each canvas the
    language model is shown (0: all of them, as the finished model works), and ``most``, where it is
    larger, the other end of a range from which each step draws that number, evenly in its
    logarithm; ``reuse`` is how many steps each encoded canvas serves, with new questions each
    time; ``tower_rate`` scales the learning rate of tower and projector (0: frozen). ``decay`` is
    the last share of the steps, in which the rate falls, and ``warmup`` the number of steps in
    which it rises. ``videos`` is the share of steps
    that show videos, for a model that can see them.
    """

    name: str
    kind: str
    steps: int
    rate: float
    batch: int = 16
    window: int = 12
    per_canvas: int = 4
    objects: tuple[int, int] = (3, 7)
    decay: float = 0.3
    warmup: int = 50
    questions: int = 14
    tokens: int = 0
    most: int = 0
    reuse: int = 1
    tower_rate: float = 0.0
    videos: float = 0.0


TINY_LLAVA = (
    # windows of 12x12 patches of crowded canvases: four times the supervision per second
    Stage("naming", "naming", steps=680, rate=2e-3, objects=(16, 26), decay=0.1),
    # the whole canvas: attention over 576 patches instead of 144
    Stage(
        "naming-full",
        "naming",
        steps=200,
        rate=1.5e-3,
        window=24,
        per_canvas=1,
        objects=(3, 18),
        decay=0.6,
    ),
    # the language model meets objects among few background tokens, at their true positions ...
    Stage("answers-few", "answers", steps=1458, rate=1.2e-3, tokens=112, reuse=4, decay=0.05),
    # ... then whole canvases ...
    Stage(
        "answers-full",
        "answers",
        steps=430,
        rate=8e-4,
        batch=12,
        questions=18,
        reuse=2,
        decay=0.7,
        warmup=15,
    ),
    # ... then few or many, so that the share of background tells nothing about a count ...
    Stage(
        "answers-varied",
        "answers",
        steps=950,
        rate=1e-3,
        tokens=72,
        most=576,
        reuse=3,
        decay=0.4,
        warmup=30,
    ),
    # ... and at last whole canvases, as the finished model works
    Stage(
        "answers-last",
        "answers",
        steps=120,
        rate=2e-4,
        batch=12,
        questions=18,
        reuse=2,
        decay=0.8,
        warmup=10,
    ),
)
