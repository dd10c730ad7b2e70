"""Asks one batch in one cell, greedily."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from prunus.errors import PrunusError
from prunus.evaluate.cells import Cell, Methods
from prunus.inference.batches import (
    Encoded,
    Prepared,
    Vision,
    left_padded,
)
from prunus.method.budget import Meaning
from prunus.results.report import Report
from prunus.results.trace import TraceEntry
from prunus.run import prune
from prunus.tasks.sets import EvalSet


def answer_tokens(processor: Any, data: EvalSet) -> int:
    """New tokens that decide whether an answer is right: the longest true answer, the end, and one
    more, so that a longer answer is not cut down to a right one."""
    tokenizer = getattr(processor, "tokenizer", processor)
    answers = {query.answer for query in data.queries}
    return 2 + max(len(tokenizer.encode(text, add_special_tokens=False)) for text in answers)


def _another(shown: Mapping[int, Prepared], image: int) -> int:
    """The next image whose visual tokens lie as those of ``image`` do.

    Raises:
        PrunusError: there is none.
    """
    alike = [number for number, one in shown.items() if one.grid == shown[image].grid]
    if len(alike) == 1 and len(shown) > 1:
        raise PrunusError(
            "other-image shows the model another image of the same size, and an image of this set "
            "is alone with its size: leave other-image out"
        )
    return alike[(alike.index(image) + 1) % len(alike)]


@dataclass(frozen=True)
class Given:
    """What one batch got in one cell: the ``texts`` of its answers and the ``seconds`` in
    ``generate``; where something was pruned, a report of each question, the trace, and whether a
    method ``decides`` by itself."""

    texts: list[str]
    seconds: float
    reports: list[Report] = field(default_factory=list)
    trace: Sequence[TraceEntry] = ()
    decides: bool = False


class Asker:
    """Asks one batch in one cell, greedily.

    Args:
        model, processor, data: as of :func:`evaluate`.
        vision: of the model.
        new_tokens: longest answer.
        budget: what the cells' ``keep`` counts.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        data: EvalSet,
        vision: Vision,
        new_tokens: int,
        budget: Meaning,
    ) -> None:
        self._budget = budget
        self._model, self._data, self._vision = model, data, vision
        self._tokenizer = getattr(processor, "tokenizer", processor)
        pad = self._tokenizer.pad_token_id
        self._pad = pad if pad is not None else self._tokenizer.eos_token_id
        self._options = {
            "max_new_tokens": new_tokens,
            "do_sample": False,
            "num_beams": 1,
            "pad_token_id": self._pad,
        }

    def ask(self, cell: Cell, group: Sequence[Encoded], shown: Mapping[int, Prepared]) -> Given:
        """The answers to ``group``, whose images are among those ``shown``.

        Raises:
            PrunusError: the cell's methods refuse this model or this batch, or its budget cannot be
                reached.
        """
        inputs = self._inputs(cell, group, shown)
        if not cell.prunes:
            began = time.perf_counter()
            output = self._model.generate(**inputs, **self._options)
            return Given(self._texts(inputs, output), time.perf_counter() - began)
        method, budget = self.method(cell, group, shown)
        began = time.perf_counter()
        with prune(self._model, method, budget=budget) as run:
            output = self._model.generate(**inputs, **self._options)
            seconds = time.perf_counter() - began
            reports, trace = run.reports(), run.trace
        decides = any(one.adaptive for one in run.methods)
        return Given(self._texts(inputs, output), seconds, reports, trace, decides)

    def _inputs(
        self, cell: Cell, group: Sequence[Encoded], shown: Mapping[int, Prepared]
    ) -> dict[str, Any]:
        if cell.shown == "none":
            padded = left_padded([one.blind_ids for one in group], self._pad)
        else:
            per_token = [one.per_token for one in group]
            padded = left_padded([one.ids for one in group], self._pad, per_token)
        inputs: dict[str, Any] = {
            key: value.to(self._model.device) for key, value in padded.items()
        }
        if cell.shown != "none":
            images = [self._data.queries[one.query].image for one in group]
            if cell.shown == "other":
                images = [_another(shown, image) for image in images]
            prepared = [shown[image] for image in images]
            inputs |= self._vision.inputs(prepared, self._vision.must_run(cell.methods))
        return inputs

    def method(
        self, cell: Cell, group: Sequence[Encoded], shown: Mapping[int, Prepared]
    ) -> tuple[Methods, Meaning]:
        """The method for this batch, and what its ``keep`` counts."""
        if cell.method is not None:
            # A method without keep has nothing to reach: it is as it is published.
            counted = all(getattr(one, "keep", None) is not None for one in cell.methods)
            return cell.method, self._budget if counted else "nominal"
        queries = [self._data.queries[one.query] for one in group]
        grids = [shown[query.image].grid for query in queries]
        known = [grid for grid in grids if grid is not None]
        if len(known) < len(grids):
            raise PrunusError("the ground truth needs a model with one grid for each image")
        scenes = [(self._data.drawn(query.image), query.asked) for query in queries]
        return cell.method_for(scenes, known, self._budget), "nominal"

    def _texts(self, inputs: Mapping[str, Any], output: Tensor) -> list[str]:
        new = output[:, inputs["input_ids"].shape[1] :]
        return [
            text.strip() for text in self._tokenizer.batch_decode(new, skip_special_tokens=True)
        ]
