"""What can be asked of the training of a selector, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunus.errors import PrunusError
from prunus.families import Family
from prunus.method.fields import check_fields, check_rest
from prunus.selector.config import SelectorConfig, TrainSettings
from prunus.tasks.faults import OnError

Precision = Literal["no", "bf16", "fp16"]
Stop = Literal["minutes", "interrupt"]

_NARROW = 512  # channels below which heads of 64 would be few


@dataclass(frozen=True)
class Options:
    """How a run goes, beside what it is (:class:`TrainSettings`): may differ when it goes on.

    Attributes:
        minutes: stop after so long, at a checkpoint; None: no limit.
        accumulate: pieces in which a process works through its share of a batch.
        precision: of the frozen model, by autocast; None: what ``accelerate launch`` says. The
            selector always computes in float32.
        every: steps between two measurements on held-out questions.
        save_every: seconds between two checkpoints.
        workers: processes that prepare data; 0: the one that trains.
        tensorboard: write TensorBoard's files, too.
        on_error: what becomes of examples that cannot be used (broken images, placeholders in a
            text): "stop" ends the run, "skip" takes others for them and counts them.

    Raises:
        PrunusError: a number out of range.
    """

    minutes: float | None = None
    accumulate: int = 1
    precision: Precision | None = None
    every: int = 500
    save_every: float = 300.0
    workers: int = 0
    tensorboard: bool = False
    on_error: OnError = "stop"

    def __post_init__(self) -> None:
        check_fields(self)
        check_rest(self)
        if self.minutes is not None and not self.minutes > 0:
            raise PrunusError(f"minutes={self.minutes:g}: give a number above 0")
        for name, least in (("accumulate", 1), ("every", 1), ("save_every", 0), ("workers", 0)):
            if not getattr(self, name) >= least:
                raise PrunusError(f"{name}={getattr(self, name)}: give at least {least}")


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        step: steps done, in all.
        stopped: None where it is complete; else why it is not.
        seconds: time that it took, in all.
        figures: means over the last steps, see :meth:`prunus.train.objective.Objective.forward`.
        held_out: the last measurement on held-out questions: ``questions``, ``accuracy``, ``kept``
            (mean K) and, once the run is complete, ``dense``, the unpruned model's accuracy.
            Empty where nothing is held out.
        parameters: number of weights of the selector.
        config: its shape.
        main: whether this is the process that speaks for all.
        left_out: why examples were left out, each reason once.
    """

    step: int
    stopped: Stop | None
    seconds: float
    figures: dict[str, float]
    held_out: dict[str, float]
    parameters: int
    config: SelectorConfig
    main: bool
    left_out: tuple[str, ...] = ()


def selector_config(family: Family, settings: TrainSettings) -> SelectorConfig:
    """The shape of a selector for a model: as wide as the features that it reads, up to the paper's
    1024, with heads of 64 channels (4 heads where it is narrow), unless ``settings.selector`` says
    otherwise."""
    chosen = dict(settings.selector)
    width = chosen.setdefault("width", min(family.feature_width, 1024))
    chosen.setdefault("heads", 4 if width < _NARROW else width // 64)
    return SelectorConfig(family.feature_width, family.text_width, **chosen)
