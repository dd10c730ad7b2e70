"""Whether CLSE suits a model: its choices against random ones, by what becomes of the answers
(which needs no labels) and, where objects are known, by what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prunus.analyse.ablations import BUDGETS, draws
from prunus.analyse.context import Context, Step
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import Measured, Setting, measure
from prunus.analyse.objects import masks_of
from prunus.analyse.positions import kept
from prunus.analyse.signals import Notes
from prunus.analyse.verdict import LEAST_IMAGES, Trial
from prunus.pruners.clse import CLSE
from prunus.pruners.uniform import Uniform
from prunus.results.stats import Estimate

#: Differences below this are none: no answer changes over a hundredth of its probability.
_NOTHING = 0.01


@dataclass(frozen=True)
class Suits:
    """What the answers say (``trials``), what the objects say (``found``), and how much of the
    answers is left by every choice: ``left[keep][name]``, see :func:`remains`; which other choices
    are ``better`` than random ones at the smallest budget; from how many ``prompts``, about
    ``images`` or ``videos`` (``things``)."""

    trials: list[Trial]
    found: list[Trial]
    left: dict[float, dict[str, Estimate]]
    better: dict[str, Trial]
    prompts: int
    things: str


def work(context: Context) -> int:
    """Prompts that :func:`suits` will put through the model."""
    each = sum(len(_rivals(keep)) + len(draws(keep, context.seed)) for keep in BUDGETS)
    return each * len(context.data.queries)


def suits(context: Context, notes: Sequence[Notes], step: Step) -> Suits:
    """Ask every question with CLSE, its rivals and random choices of as many tokens."""
    trials: list[Trial] = []
    better: dict[str, Trial] = {}
    left: dict[float, dict[str, Estimate]] = {}
    for keep in BUDGETS:
        own = {name: measure(context, one, step) for name, one in _rivals(keep).items()}
        chances = [measure(context, one, step) for one in draws(keep, context.seed)]
        tried = {
            name: replace(answers_trial(keep, one, chances, context.groups), things=context.things)
            for name, one in own.items()
        }
        trials.append(tried.pop("CLSE"))
        if keep == min(BUDGETS):
            better = {name: trial for name, trial in tried.items() if trial.word == "suits"}
        left[keep] = {
            name: mean_over_images(remains(one), context.groups) for name, one in own.items()
        }
        by_chance = np.mean([remains(one) for one in chances], axis=0)
        left[keep]["random"] = mean_over_images(by_chance, context.groups)
    found = objects_trials(context, notes)
    return Suits(trials, found, left, better, len(notes), context.things)


def _rivals(keep: float) -> Mapping[str, Setting]:
    """CLSE, and what else might choose."""
    return {
        "CLSE": (CLSE(keep=keep),),
        "hybrid": (CLSE(keep=keep, variant="hybrid"),),
        "attention": (CLSE(keep=keep, score_type="attn"),),
        "uniform": (Uniform(keep=keep),),
    }


def remains(found: Measured) -> NDArray[np.float64]:
    """What is left of the dense model's first answer token, float64 ``[questions]``: exp(-KL), 1
    where nothing changed. Where the dense model is sure of its token, this is the probability that
    it still has; no single prompt weighs much more than another, as it would in a mean of KL."""
    left: NDArray[np.float64] = np.exp(-found.divergence)
    return left


def answers_trial(
    keep: float,
    own: Measured,
    chances: Sequence[Measured],
    images: NDArray[np.int64],
    fewest: int = LEAST_IMAGES,
) -> Trial:
    """How much more is left of the answers than under random choices."""
    left, draws_left = remains(own), [remains(one) for one in chances]
    by_chance = np.mean(draws_left, axis=0)
    return Trial(
        "answers",
        keep,
        mean_over_images(left, images),
        float(by_chance.mean()),
        mean_over_images(left - by_chance, images),
        tuple(float((left - one).mean()) for one in draws_left),
        len(np.unique(images)),
        _NOTHING,
        fewest,
    )


def objects_trials(context: Context, notes: Sequence[Notes]) -> list[Trial]:
    """Share kept of the tokens that show an object, and of those that show one asked about, at the
    input of layer 1, against the share that random choices keep on average; nothing where objects
    are unknown."""
    trials = []
    for keep in BUDGETS:
        own = [kept(note, "intensity, global", keep) for note in notes]
        by_chance = np.array([mask.mean() for mask in own])
        for name in ("objects", "asked"):
            objects = masks_of(context, notes, asked=name == "asked")
            if objects is None:
                return []
            share = np.array(
                [
                    mask[true].mean() if true.any() else np.nan
                    for mask, true in zip(own, objects, strict=True)
                ]
            )
            there = ~np.isnan(share)
            trials.append(
                Trial(
                    name,
                    keep,
                    mean_over_images(share, context.groups),
                    float(by_chance[there].mean()) if there.any() else float("nan"),
                    mean_over_images(share - by_chance, context.groups),
                    (),
                    len(np.unique(context.groups[there])),
                )
            )
    return trials
