"""Benchmarks that have a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.errors import unknown


@dataclass(frozen=True)
class Preset:
    """Values of the options of ``prunus bench`` that were not given.

    Attributes:
        about: one line for people.
        shape: what is timed, at ``scale`` on a CPU and whole on a GPU.
        methods: as on the command line.
        keep: for those that take one.
        tokens: lengths of answers.
        frames: of a video, on a GPU and on a CPU; None: the shape's.
        rounds: on a CPU.
        published: ids of the tables that are shown beside the result.
    """

    about: str
    shape: str
    methods: Sequence[str]
    keep: str | None
    scale: float = 0.25
    tokens: Sequence[int] = (1, 32)
    frames: tuple[int, int] | None = None
    rounds: int = 10
    published: Sequence[str] = ()


PRESETS: dict[str, Preset] = {
    "cpu": Preset(
        "how near pruning is to the least work, in minutes on two cores",
        "llava-1.5-7b",
        ("fastv", "clse", "divprune", "visionzip", "random"),
        "64",
        tokens=(1, 16),
    ),
}

DEFAULT = Preset(
    "one question about one picture",
    "llava-1.5-7b",
    ("fastv", "clse", "divprune", "visionzip"),
    "64",
    scale=1.0,
)


def preset_of(name: str) -> Preset:
    """The preset of that name.

    Raises:
        PrunusError: an unknown name.
    """
    if name not in PRESETS:
        raise unknown("preset", name, list(PRESETS), {k: one.about for k, one in PRESETS.items()})
    return PRESETS[name]
