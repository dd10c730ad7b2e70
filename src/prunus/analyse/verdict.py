"""Whether CLSE's choice is worth more than a random one: measured numbers turned into one word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prunus.results.stats import Estimate

Word = Literal["suits", "does not suit", "cannot tell"]

#: With fewer images an interval over images is too narrow to go by, and nothing is said.
LEAST_IMAGES = 20


@dataclass(frozen=True)
class Trial:
    """CLSE against random choices of as many tokens, by one measure at one budget.

    Attributes:
        measure: ``answers``, ``objects``, ``asked`` ...
        keep: share of the visual tokens that is kept.
        own: the measure under the choice that is tried (CLSE's), with its interval.
        random: its mean under random choices.
        ahead: how much better CLSE is, paired over prompts; positive is better.
        draws: the same against each random choice alone; empty where ``random`` is no draw but
            what random choices come to on average.
        images: how many images (or videos) the interval goes over.
        least: a difference below this is none.
        fewest: with fewer images nothing can be told.
        things: ``images`` or ``videos``.

    What is measured are shares; 1 is best.
    """

    measure: str
    keep: float
    own: Estimate
    random: float
    ahead: Estimate
    draws: tuple[float, ...]
    images: int
    least: float = 0.0
    fewest: int = LEAST_IMAGES
    things: str = "images"

    @property
    def word(self) -> Word:
        """``suits`` where the whole interval, and the difference to each draw, is above zero;
        ``does not suit`` where all of that is below; else ``cannot tell``."""
        if self.images < self.fewest or not math.isfinite(self.ahead.low):
            return "cannot tell"
        if abs(self.ahead.value) < self.least:
            return "cannot tell"
        if self.ahead.low > 0 and all(draw > 0 for draw in self.draws):
            return "suits"
        if self.ahead.high < 0 and all(draw < 0 for draw in self.draws):
            return "does not suit"
        return "cannot tell"

    @property
    def doubt(self) -> str:
        """Why nothing can be told."""
        if self.images < self.fewest or not math.isfinite(self.ahead.low):
            return f"too few {self.things} ({self.images}): give at least {self.fewest}"
        if abs(self.ahead.value) < self.least:
            return f"at {percent(self.keep)} kept, it makes no difference which tokens are kept"
        if self.ahead.low <= 0 <= self.ahead.high:
            return f"{_measured(self)}, an interval that includes 0"
        return f"{_measured(self)}, but random choices differ as much among themselves"


def percent(share: float) -> str:
    """``11.1 %``."""
    return f"{100 * share:.1f} %"


def together(trials: Sequence[Trial]) -> Word:
    """One word for several budgets: that of all which can tell; ``cannot tell`` where none can, or
    where they contradict each other."""
    told = {trial.word for trial in trials} - {"cannot tell"}
    return told.pop() if len(told) == 1 else "cannot tell"


def reason(trials: Sequence[Trial]) -> str:
    """What :func:`together` rests on, in words."""
    word = together(trials)
    if word != "cannot tell":
        return "; ".join(_measured(trial) for trial in trials if trial.word == word)
    if any(trial.word != "cannot tell" for trial in trials):
        return "; ".join(
            f"at {percent(trial.keep)} kept it {trial.word}"
            for trial in trials
            if trial.word != "cannot tell"
        )
    return "; ".join(dict.fromkeys(trial.doubt for trial in trials))


def _measured(trial: Trial) -> str:
    low, high = (f"{100 * end:+.1f}" for end in (trial.ahead.low, trial.ahead.high))
    return (
        f"at {percent(trial.keep)} kept its choice leaves {percent(trial.own.value)} of the "
        f"answer, random ones {percent(trial.random)} ({100 * trial.ahead.value:+.1f} points "
        f"[{low}, {high}])"
    )
