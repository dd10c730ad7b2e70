"""The same questions under many settings: right answers, agreement, divergence, and the cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.analyse.context import Answers, Context, Step
from prunus.analyse.intervals import mean_over_images
from prunus.evaluate.scoring import is_right, normalise
from prunus.method import Method
from prunus.results.stats import Estimate, paired_difference, wilson
from prunus.run import prune

#: One or several methods that act together; none at all is the unmodified model.
Setting = tuple[Method, ...]

DENSE: Setting = ()

#: Figures of ``run.report()``: name to the keys that lead to it.
_FIGURES: dict[str, tuple[str, ...]] = {
    "kept": ("tokens", "kept"),
    "average": ("tokens", "average"),
    "dense_flops": ("flops", "dense", "llm"),
    "flops": ("flops", "pruned", "llm"),
}


@dataclass(frozen=True)
class Measured:
    """What one setting did to every question; arrays are float64 ``[questions]``.

    Attributes:
        success: 1 where the answer is right (exact match) or, where no true answer is known, where
            it is the dense model's; a mean over repetitions.
        same: 1 where the answer equals the dense model's; likewise.
        divergence: Kullback-Leibler divergence KL(dense || this) of the first answer token's
            distribution, in nats.
        figures: ``kept`` visual tokens at the last layer, ``average`` per decoder layer (the true
            budget) and ``flops_ratio``, what the language model's prefill costs against dense;
            empty for the dense model.
    """

    success: NDArray[np.float64]
    same: NDArray[np.float64]
    divergence: NDArray[np.float64]
    figures: dict[str, float]


def measure(context: Context, setting: Setting, step: Step) -> Measured:
    """Ask every question of ``context`` under ``setting``, or look up what was measured before.

    ``step`` is called with numbers of prompts that add up to the number of questions.
    """
    key = ("measured", setting)
    if key in context.memo:
        step(len(context.data.queries))
    else:
        context.memo[key] = _measure(context, setting, step)
    found: Measured = context.memo[key]
    return found


def _measure(context: Context, setting: Setting, step: Step) -> Measured:
    answers, sums = context.blank(), dict.fromkeys(_FIGURES, 0.0)
    for batch in context.batches:
        if not setting:
            context.answer(batch, answers)
        else:
            with prune(context.model, setting) as run:
                context.answer(batch, answers)
                report = run.report()
            for name, keys in _FIGURES.items():
                value: Any = report
                for part in keys:
                    value = None if value is None else value[part]
                sums[name] += float("nan" if value is None else value) * len(batch.queries)
        step(len(batch.queries))
    if not setting:
        context.memo["dense"] = answers
    base = _dense(context)
    count = len(answers.texts)
    same = [
        normalise(own) == normalise(dense)
        for own, dense in zip(answers.texts, base.texts, strict=True)
    ]
    right = [
        is_right(text, query.answer)
        for text, query in zip(answers.texts, context.data.queries, strict=True)
    ]
    figures = {}
    if setting:
        figures = {name: sums[name] / count for name in ("kept", "average")}
        if not math.isnan(sums["flops"]):  # it was counted
            figures["flops_ratio"] = sums["flops"] / sums["dense_flops"]
    return Measured(
        np.array(right if context.known else same, dtype=np.float64),
        np.array(same, dtype=np.float64),
        divergence(base.logprobs, answers.logprobs),
        figures,
    )


def _dense(context: Context) -> Answers:
    if "dense" not in context.memo:
        measure(context, DENSE, lambda count: None)
    found: Answers = context.memo["dense"]
    return found


def divergence(reference: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(reference || other) of each row in nats, float64 ``[n]``, from log-probabilities
    ``[n, vocabulary]``; rounding below zero is cut off. Where the reference is sure that a token
    is impossible (minus infinity), that token adds nothing."""
    first, second = reference.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):  # 0 * (-inf - ...) is nothing, not NaN
        terms = np.where(np.isneginf(first), 0.0, np.exp(first) * (first - second))
    total: NDArray[np.float64] = np.maximum(terms.sum(axis=1), 0.0)
    return total


def pooled(repetitions: Sequence[Measured]) -> Measured:
    """The mean of several repetitions (seeds) of one setting, question by question."""
    return Measured(
        np.mean([one.success for one in repetitions], axis=0),
        np.mean([one.same for one in repetitions], axis=0),
        np.mean([one.divergence for one in repetitions], axis=0),
        {
            name: float(np.mean([one.figures[name] for one in repetitions]))
            for name in repetitions[0].figures
        },
    )


def row(context: Context, measured: Measured) -> dict[str, Any]:
    """One line of a table.

    ``accuracy`` (or ``agreement`` where no true answers are known) with Wilson's interval as
    ``accuracy_low`` and ``_high``; ``difference`` to the dense model, paired over questions, those
    about one image as one group; ``agreement`` with the dense model's answers; ``divergence`` in
    nats, its interval from a bootstrap over images; then :attr:`Measured.figures`. Shares are in
    0..1.
    """
    count, groups = len(context.data.queries), context.groups
    base = measure(context, DENSE, lambda _: None)
    share = wilson(float(measured.success.sum()), count)
    line = flat(context.measure_name, share)
    if context.known:
        line |= flat("difference", paired_difference(measured.success, base.success, groups))
        line |= flat("agreement", wilson(float(measured.same.sum()), count))
    line |= flat("divergence", mean_over_images(measured.divergence, groups))
    return line | measured.figures


def flat(name: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as three columns: ``name``, ``name_low``, ``name_high``."""
    value, low, high = estimate
    return {name: value, f"{name}_low": low, f"{name}_high": high}
