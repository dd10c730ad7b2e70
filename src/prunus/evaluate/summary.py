"""From answers to the rows of the table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError
from prunus.evaluate.runner import Outcome
from prunus.method.budget import Keep, resolve_keep
from prunus.results.stats import Estimate, Flips, flips, paired_difference, wilson
from prunus.tasks.sets import EvalSet


@dataclass(frozen=True)
class Row:
    """One method at one budget, seeds taken together.

    Attributes:
        nominal: visual tokens asked for, None where nothing is pruned or the method finds its own
            count.
        figures: means of the cells' figures (:data:`~prunus.evaluate.runner.FIGURES` and, where a
            method decides by itself, what it did), empty where nothing is pruned.
        accuracy: share of right answers with Wilson's interval; by_type: the same for each type.
        difference, changed: against the dense model; None for the dense model itself.
        per_seed: accuracy of each seed, in the order of the seeds.
        objects, asked, ranking: means of :class:`~prunus.evaluate.evidence.Evidence`, None where
            there is none.
        seconds: time in ``generate``, all seeds together.
    """

    name: str
    keep: Keep | None
    seeds: tuple[int, ...]
    nominal: int | None
    figures: dict[str, float]
    accuracy: Estimate
    by_type: dict[str, Estimate]
    difference: Estimate | None
    changed: Flips | None
    per_seed: tuple[float, ...]
    objects: float | None
    asked: float | None
    ranking: float | None
    seconds: float


def summarise(data: EvalSet, outcomes: Sequence[Outcome]) -> list[Row]:
    """One row per method and budget, in the order of ``outcomes``, whose first is the dense model.

    Raises:
        PrunusError: the first outcome is not the dense model.
    """
    if not outcomes or outcomes[0].cell.name != "dense":
        raise PrunusError(
            "the first outcome must be the dense model: all others are compared to it"
        )
    together: dict[tuple[str, Keep | None], list[Outcome]] = {}
    for outcome in outcomes:
        together.setdefault((outcome.cell.name, outcome.cell.keep), []).append(outcome)
    base = outcomes[0].right.astype(np.float64)
    return [_row(data, same, base) for same in together.values()]


def _row(data: EvalSet, same: Sequence[Outcome], base: NDArray[np.float64]) -> Row:
    cell = same[0].cell
    right = np.mean([outcome.right for outcome in same], axis=0)
    types = np.array([query.type for query in data.queries])
    images = np.array([query.image for query in data.queries])
    figures = {
        name: float(np.mean([outcome.figures[name] for outcome in same]))
        for name in same[0].figures
    }
    nominal = None
    if cell.keep is not None:
        nominal = resolve_keep(cell.keep, round(figures["original"]))
    dense = cell.name == "dense"
    seen = [one for outcome in same for one in outcome.evidence]
    return Row(
        name=cell.name,
        keep=cell.keep,
        seeds=tuple(o.cell.seed for o in same if o.cell.seed is not None),
        nominal=nominal,
        figures=figures,
        accuracy=_share(right),
        by_type={kind: _share(right[types == kind]) for kind in dict.fromkeys(types.tolist())},
        difference=None if dense else paired_difference(right, base, images),
        changed=None if dense else _flips(same, base),
        per_seed=tuple(float(outcome.right.mean()) for outcome in same),
        objects=_mean([one.objects for one in seen]),
        asked=_mean([one.asked for one in seen]),
        ranking=_mean([one.ranking for one in seen]),
        seconds=sum(outcome.seconds for outcome in same),
    )


def _share(right: NDArray[np.float64]) -> Estimate:
    return wilson(float(right.sum()), len(right))


def _flips(same: Sequence[Outcome], base: NDArray[np.float64]) -> Flips:
    """Means over seeds of each seed's own flips: averaged answers would hide opposite ones."""
    each = [flips(outcome.right.astype(np.float64), base) for outcome in same]
    return Flips(*(float(np.mean(column)) for column in zip(*each, strict=True)))


def _mean(values: Sequence[float]) -> float | None:
    with warnings.catch_warnings():  # all of them unknown is no accident here
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = float(np.nanmean(values))
    return None if np.isnan(mean) else mean
