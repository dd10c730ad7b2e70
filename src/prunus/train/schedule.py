"""What changes in the course of training: learning rate, text gate and temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunus.selector.config import TrainSettings


@dataclass(frozen=True)
class Schedule:
    """What the objective is given at one step.

    Attributes:
        text_gate: g in 0..1, the share of the question's words that reaches the encoder. The
            paper (arXiv 2606.16067) anneals it from 0 to 1; its shape is open, here it is a line.
        temperature: of the soft top-k; falls along half a cosine (as in arXiv 2605.28051, from
            which the gate is taken).
        length: factor on the length's weight, rises to 1 along a line.
    """

    text_gate: float
    temperature: float
    length: float = 1.0

    @classmethod
    def at(cls, step: int, settings: TrainSettings) -> Schedule:
        """The state at ``step`` (counted from 0) of ``settings.steps``."""
        gate = _progress(step, settings.text_gate * settings.steps)
        fallen = _progress(step, settings.sharpen * settings.steps)
        length = _progress(step, settings.lengthen * settings.steps)
        return cls(gate, _cosine(settings.sharp_from, settings.sharp_to, fallen), length)


def rate_at(step: int, settings: TrainSettings) -> float:
    """Learning rate at ``step``: a linear warm-up, then a cosine down to the final rate."""
    warmup = settings.warmup * settings.steps
    if step + 1 < warmup:
        return settings.rate * (step + 1) / warmup
    return _cosine(
        settings.rate, settings.final_rate, _progress(step - warmup, settings.steps - warmup)
    )


def _progress(step: float, length: float) -> float:
    """Share of ``length`` steps that lie behind ``step``, 1 where there are none."""
    return 1.0 if length <= 0 else min(max(step / length, 0.0), 1.0)


def _cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
