"""Comparisons that have a name: what is asked where nothing else is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.evaluate.cells import RATIOS, default_names
from prunus.method.budget import Keep, Meaning

_BOTH: tuple[Meaning, ...] = ("true", "nominal")
_MODELS = ("tiny-llava", "tiny-qwen")


@dataclass(frozen=True)
class Preset:
    """Values of the options of ``prunus compare`` that were not given; ``methods`` None: all that
    need nothing trained, and the controls."""

    models: Sequence[str] = _MODELS
    methods: Sequence[str] | None = None
    keeps: Sequence[Keep] = RATIOS
    meanings: Sequence[Meaning] = _BOTH
    seeds: int = 3
    limit: int | None = 500
    pictures: int = 2
    rounds: int = 7
    rival: str | None = "divprune"


PRESETS: dict[str, Preset] = {
    # does it work here? about a minute
    "smoke": Preset(
        methods=("fastv", "divprune", "random", "uniform"),
        keeps=(1 / 9,),
        seeds=2,
        limit=24,
        pictures=1,
        rounds=3,
    ),
    # the first look: every method at the papers' largest and smallest budget, in 20 minutes on two
    # cores: 0.05 s of a core for an answer, 0.13 s for a prefill that is timed
    "readme": Preset(keeps=(1 / 3, 1 / 9), limit=90, seeds=2, rounds=5),
    # everything
    "leaderboard": Preset(),
}


#: What is compared beside what ``prunus eval`` asks, where nothing is named: schedules whose budget
#: is an average (small ones may be refused), and the compositions of prunus.
MORE = ("clse-m", "pyramiddrop", "v2drop", "prunus@lean", "prunus@balanced", "prunus@careful")
#: The same where all models are built in, for which selectors ship.
TRAINED = ("stepwise", "one-shot")


def methods_of(preset: Preset, scenes: bool, builtin: bool = False) -> list[str]:
    """The names that are compared; the ground truth only where ``scenes`` are known, what is
    trained only on ``builtin`` models."""
    from prunus.evaluate.cells import GROUND_TRUTH

    if preset.methods is not None:
        names = list(preset.methods)
    else:
        names = [*MORE, *(TRAINED if builtin else ())]
        names = [*names, *(name for name in default_names() if name not in names)]
    return [name for name in names if scenes or name != GROUND_TRUTH]
