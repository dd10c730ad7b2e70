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
    "clse-5-image": Preset(
        "CLSE, Table 5, on LLaVA-1.5-7B",
        "llava-1.5-7b",
        ("fastv@192", "pyramiddrop@192", "sparsevlm@192", "clse@released"),
        "192",
        tokens=(1,),
        published=("clse-5-image",),
    ),
    "clse-5-video": Preset(
        "CLSE, Table 5, on Video-LLaVA-7B",
        "video-llava-7b",
        ("fastv", "pyramiddrop", "sparsevlm", "clse-m@194"),
        "194",
        tokens=(1,),
        rounds=5,
        published=("clse-5-video",),
    ),
    "stepwise-3": Preset(
        "StepPrune, Table 3: 1.88 times as fast",
        "llava-1.5-7b",
        ("fastv@64", "pyramiddrop@64", "stepwise", "one-shot"),
        "64",
        tokens=(1,),
        published=("stepwise-3",),
    ),
    "evoprune-video": Preset(
        "EvoPrune, Figure 3: 64 frames",
        "llava-onevision-7b",
        (
            "evoprune:keep=64",
            "divprune:keep=0.327",
            "dart:keep=0.327",
        ),
        None,
        scale=0.35,
        tokens=(1,),
        frames=(64, 4),
        rounds=5,
        published=("evoprune-video",),
    ),
    "visipruner": Preset(
        "VisiPruner, beside the one request that a third party timed",
        "llava-1.5-7b",
        ("visipruner",),
        None,
        tokens=(1, 32),
        published=("visipruner-request",),
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
