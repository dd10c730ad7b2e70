"""Asks every question in every cell, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunus.errors import PrunusBudgetError, PrunusError
from prunus.evaluate.asker import Asker, answer_tokens
from prunus.evaluate.cells import Cell
from prunus.evaluate.evidence import NOTHING, Evidence, evidence
from prunus.evaluate.scoring import is_right
from prunus.inference.batches import (
    Encoded,
    Prepared,
    Vision,
    encode,
    in_batches,
)
from prunus.method.budget import Meaning
from prunus.results.events import Event, events_of
from prunus.results.report import Report
from prunus.tasks.faults import Faults, at
from prunus.tasks.sets import EvalSet

#: Sums that a cell's figures are made of: name to the keys that lead to it in a report.
_SUMMED: dict[str, tuple[str, ...]] = {
    "original": ("tokens", "original"),
    "kept": ("tokens", "kept"),
    "average": ("tokens", "average"),
    "resident": ("tokens", "resident"),
    "dense_flops": ("flops", "dense", "total"),
    "flops": ("flops", "pruned", "total"),
    "dense_llm_flops": ("flops", "dense", "llm"),
    "llm_flops": ("flops", "pruned", "llm"),
    "dense_visual_attention": ("visual_attention", "dense"),
    "visual_attention": ("visual_attention", "pruned"),
    "dense_kv": ("kv_bytes", "dense"),
    "kv": ("kv_bytes", "pruned"),
}
#: What a cell cost: visual tokens (means) and shares of what the dense model needs.
FIGURES = (
    "original",
    "kept",
    "average",
    "resident",
    "flops_ratio",
    "llm_flops_ratio",
    "kv_ratio",
    "visual_attention_ratio",
)
#: Added where a method decides itself where it acts: share of questions in which it did nothing,
#: and for each thing that it did the share of questions and the mean layer that it looked at.
IDLE = "idle_share"


@dataclass
class Outcome:
    """The answers of one cell, in the order of the set's questions.

    ``figures`` are the :data:`FIGURES` over all questions, from ``run.report()``; empty for cells
    that prune nothing. ``seconds`` is the time spent in ``generate``. ``events``, by question, are
    what a method did that decides by itself; None of it in other cells.
    """

    cell: Cell
    answers: list[str]
    right: NDArray[np.bool_]
    evidence: list[Evidence]
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    events: dict[int, list[Event]] = field(default_factory=dict)


def evaluate(
    model: Any,
    processor: Any,
    data: EvalSet,
    cells: Sequence[Cell],
    *,
    batch: int = 32,
    images_at_once: int = 125,
    step: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Ask every question of ``data`` in every cell, greedily.

    All cells see the same batches, made of questions of equal length wherever possible. The vision
    tower runs once per image where model and method allow it (see :class:`Vision`).

    Args:
        model: a supported model in evaluation mode.
        processor: its processor.
        data: questions and images.
        cells: what to compare, from :func:`make_cells`.
        batch: questions per call of ``generate``.
        images_at_once: images whose features are held at a time.
        step: called with the number of answers after each call of ``generate``.

    Returns:
        One outcome per cell, in the order of ``cells``.

    Raises:
        PrunusError: no questions, one that cannot be asked, or a ground truth without scenes.
    """
    evaluation = Evaluation(model, processor, data, cells)
    evaluation.run(batch=batch, images_at_once=images_at_once, step=step)
    return evaluation.so_far()[1]


class Evaluation:
    """One evaluation, of which what was answered so far can be had at any time.

    Args:
        model, processor, data, cells: as of :func:`evaluate`.
        faults: what becomes of questions that cannot be asked, such as those about broken images;
            default: the first one is raised, after everything before it was asked.
        budget: what the cells' ``keep`` counts. A cell that cannot reach a true one for some
            question has no outcome.

    Attributes:
        refused: why cells have no outcome, by their keys.

    Raises:
        PrunusError: no questions, or a method that does not fit the model.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        data: EvalSet,
        cells: Sequence[Cell],
        faults: Faults | None = None,
        budget: Meaning = "nominal",
    ) -> None:
        if not data.queries:
            raise PrunusError("there are no questions to ask")
        count = len(data.queries)
        self._processor, self._data, self._faults = processor, data, faults or Faults()
        self._vision = Vision(model)
        # What does not fit is refused before anything is asked.
        cells = [cell.fitted(self._vision.family) for cell in cells]
        self._outcomes = [
            Outcome(cell, [""] * count, np.zeros(count, dtype=np.bool_), [NOTHING] * count)
            for cell in cells
        ]
        self._sums: list[dict[str, float]] = [dict.fromkeys(_SUMMED, 0.0) for _ in cells]
        self._answered: set[int] = set()
        self.refused: dict[str, str] = {}
        new_tokens = answer_tokens(processor, data)
        self._asker = Asker(model, processor, data, self._vision, new_tokens, budget)

    @torch.inference_mode()
    def run(
        self,
        *,
        batch: int = 32,
        images_at_once: int = 125,
        step: Callable[[int], None] | None = None,
    ) -> None:
        """Ask everything; arguments and errors as of :func:`evaluate`."""
        for chunk, shown in self._chunks(images_at_once):
            for group in in_batches(chunk, batch):
                reports = []
                for outcome in self._outcomes:
                    reports.append(self._ask(outcome, group, shown))
                    if step is not None:
                        step(len(group))
                self._count(group, reports)

    def _ask(
        self, outcome: Outcome, group: Sequence[Encoded], shown: dict[int, Prepared]
    ) -> Sequence[Report]:
        """Fill in the answers of ``group``, as long as the cell's budget can be reached; reports
        where something was pruned."""
        if outcome.cell.key in self.refused:
            return ()
        try:
            given = self._asker.ask(outcome.cell, group, shown)
        except PrunusBudgetError as error:
            self.refused[outcome.cell.key] = str(error)
            return ()
        outcome.seconds += given.seconds
        for row, (one, text) in enumerate(zip(group, given.texts, strict=True)):
            query = self._data.queries[one.query]
            outcome.answers[one.query] = text
            outcome.right[one.query] = is_right(text, query.answer)
            scene = self._data.drawn(query.image)
            if given.decides:
                outcome.events[one.query] = events_of(given.trace, row)
            if given.reports and scene is not None:
                outcome.evidence[one.query] = evidence(given.trace, row, scene, query.asked)
        return given.reports

    def _count(self, group: Sequence[Encoded], reports: Sequence[Sequence[Report]]) -> None:
        """Note that ``group`` was asked in all cells, and what that cost."""
        for total, own in zip(self._sums, reports, strict=True):
            for name, keys in _SUMMED.items():
                total[name] += sum(_at(report, keys) for report in own)
        self._answered |= {one.query for one in group}

    def so_far(self) -> tuple[EvalSet, list[Outcome]]:
        """The questions that were answered in all cells, and the outcomes on these."""
        numbers = sorted(self._answered)
        if not numbers:
            return replace(self._data, queries=()), []
        data = replace(self._data, queries=tuple(self._data.queries[n] for n in numbers))
        found = []
        for outcome, total in zip(self._outcomes, self._sums, strict=True):
            if outcome.cell.key in self.refused:
                continue
            own = _only(outcome, numbers)
            if own.cell.prunes:
                own.figures = _figures(total, len(numbers)) | _decided(own.events)
            found.append(own)
        return data, found

    def _chunks(self, images_at_once: int) -> Iterator[tuple[list[Encoded], dict[int, Prepared]]]:
        """Encoded questions about a few images at a time, and what the model is shown of each."""
        by_image: dict[int, list[int]] = {}
        for number, query in enumerate(self._data.queries):
            by_image.setdefault(query.image, []).append(number)
        images = list(by_image)
        for start in range(0, len(images), images_at_once):
            encoded: list[Encoded] = []
            pixels: dict[int, dict[str, Tensor]] = {}
            failure: PrunusError | None = None
            for image in images[start : start + images_at_once]:
                try:
                    own, pixels[image] = self._encode(image, by_image[image])
                    encoded += own
                except PrunusError as error:
                    failure = error  # raised once everything before it was asked
                    break
            pixels = {image: one for image, one in pixels.items() if one}
            if encoded:
                prepared = self._vision.prepare(list(pixels.values()))
                yield encoded, dict(zip(pixels, prepared, strict=True))
            if failure is not None:
                raise failure

    def _encode(
        self, image: int, numbers: Sequence[int]
    ) -> tuple[list[Encoded], dict[str, Tensor]]:
        """The questions ``numbers`` about one image, and its pixels (none if nothing can be
        asked about it)."""
        queries = self._data.queries
        try:
            seen = self._data.seen(image)
        except PrunusError as error:
            self._faults.take(error, len(numbers))
            return [], {}
        encoded: list[Encoded] = []
        pixels: dict[str, Tensor] = {}
        for number in numbers:
            try:
                with at(queries[number].place):
                    one, pixels = encode(self._processor, number, queries[number].text, seen)
                encoded.append(one)
            except PrunusError as error:
                self._faults.take(error)
        return encoded, pixels if encoded else {}


def _only(outcome: Outcome, numbers: Sequence[int]) -> Outcome:
    """``outcome`` on the questions ``numbers``, counted anew."""
    return Outcome(
        outcome.cell,
        [outcome.answers[number] for number in numbers],
        outcome.right[list(numbers)],
        [outcome.evidence[number] for number in numbers],
        seconds=outcome.seconds,
        events={
            new: outcome.events[number]
            for new, number in enumerate(numbers)
            if number in outcome.events
        },
    )


def _at(report: Report, keys: tuple[str, ...]) -> float:
    """One figure; NaN where it was not counted."""
    value: Any = report
    for key in keys:
        value = None if value is None else value[key]
    return float("nan") if value is None else float(value)


def _figures(total: dict[str, float], count: int) -> dict[str, float]:
    """Means of counts, and ratios of sums, which do not depend on how questions were batched; of
    what was counted."""
    figures = {name: total[name] / count for name in ("original", "kept", "average", "resident")}
    for name in ("flops", "llm_flops", "kv", "visual_attention"):
        if not math.isnan(total[name]):
            figures[f"{name}_ratio"] = total[name] / total[f"dense_{name}"]
    return figures


def _decided(events: Mapping[int, Sequence[Event]]) -> dict[str, float]:
    if not events:
        return {}
    figures = {IDLE: sum(not own for own in events.values()) / len(events)}
    layers: dict[str, list[int]] = {}
    for own in events.values():
        for event in own:
            layers.setdefault(event.label, []).append(event.layer_seen or 0)
    for label, seen in sorted(layers.items()):
        figures[f"{label}_share"] = len(seen) / len(events)
        figures[f"{label}_layer"] = float(np.mean(seen))
    return figures
