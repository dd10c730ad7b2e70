"""A model at which questions are asked: the images of a part of the set at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from prunus.compare.columns import Column, make_columns
from prunus.compare.setting import RunSpec, Setting
from prunus.compare.store import Given
from prunus.errors import PrunusError, one_line
from prunus.evaluate.asker import Asker, answer_tokens
from prunus.families import family_of
from prunus.inference.answer import dense_report
from prunus.inference.batches import Encoded, Prepared, Vision, encode, in_batches, left_padded
from prunus.loading import load
from prunus.method.budget import Meaning
from prunus.results.report import Report
from prunus.tasks.faults import Faults, at
from prunus.tasks.sets import load_set

#: Figures of a report that are kept of every answer, and the keys that lead to them.
FIGURES: dict[str, tuple[str, ...]] = {
    "original": ("tokens", "original"),
    "kept": ("tokens", "kept"),
    "average": ("tokens", "average"),
    "resident": ("tokens", "resident"),
    "per_layer": ("tokens", "per_layer"),
    "dense_llm_flops": ("flops", "dense", "llm"),
    "llm_flops": ("flops", "pruned", "llm"),
    "dense_flops": ("flops", "dense", "total"),
    "flops": ("flops", "pruned", "total"),
    "dense_kv": ("kv_bytes", "dense"),
    "kv": ("kv_bytes", "pruned"),
}


@dataclass(frozen=True)
class Answered:
    """Answers to a batch of questions, by their numbers."""

    given: dict[int, Given]


def figures(report: Report) -> dict[str, Any]:
    """The :data:`FIGURES` of a report; None of what was not counted."""
    found: dict[str, Any] = {}
    for name, keys in FIGURES.items():
        value: Any = report
        for key in keys:
            value = None if value is None else value[key]
        found[name] = value
    return found


@dataclass
class _Part:
    """What is prepared of a part of the set: its encoded questions, and what is wrong with others;
    and what the model is shown of each image."""

    images: tuple[int, ...] = ()
    encoded: dict[int, Encoded] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    shown: dict[int, Prepared] = field(default_factory=dict)


class Desk:
    """A loaded model with its columns and questions.

    Args:
        setting: of the comparison.
        spec: which model and set.

    Attributes:
        data: the questions that are asked; ``lines``: what is wrong with lines of their file.
        new_tokens: as :func:`answer_tokens` of all of the set, so that a limit changes no answer.

    Raises:
        PrunusError: nothing can be loaded, or a method of a wrong name.
    """

    def __init__(self, setting: Setting, spec: RunSpec) -> None:
        self._setting = setting
        self.model: Any
        self.model, self.processor = load(spec.model, dtype=setting.dtype, device=setting.device)
        self.lines = Faults("skip" if setting.skip else "stop")
        whole = load_set(spec.data, self.lines)
        self.data = whole.first(setting.limit)
        self.new_tokens = setting.new_tokens or answer_tokens(self.processor, whole)
        self.family = family_of(self.model)
        self.columns: list[Column] = make_columns(
            setting.methods, setting.keeps, setting.meanings, setting.seeds, self.family
        )
        self.vision = Vision(self.model)
        self._part = _Part()
        self._numbers: dict[int, list[int]] = {}
        for number, query in enumerate(self.data.queries):
            self._numbers.setdefault(query.image, []).append(number)

    def asker(self, budget: Meaning) -> Asker:
        """Asks at this desk, with budgets that count what ``budget`` says."""
        return Asker(self.model, self.processor, self.data, self.vision, self.new_tokens, budget)

    def part(self, images: Sequence[int]) -> _Part:
        """The questions about ``images``, encoded; kept until others are wanted."""
        if self._part.images != tuple(images):
            self._part = self._prepared(tuple(images))
        return self._part

    @torch.inference_mode()
    def _prepared(self, images: tuple[int, ...]) -> _Part:
        part = _Part(images)
        pixels: dict[int, dict[str, Any]] = {}
        for image in images:
            try:
                seen = self.data.seen(image)
            except PrunusError as error:
                part.faults |= dict.fromkeys(self._numbers[image], one_line(error))
                continue
            for number in self._numbers[image]:
                query = self.data.queries[number]
                try:
                    with at(query.place):
                        one, own = encode(self.processor, number, query.text, seen)
                except PrunusError as error:
                    part.faults[number] = one_line(error)
                    continue
                part.encoded[number], pixels[image] = one, own
        prepared = self.vision.prepare(list(pixels.values()))
        part.shown = dict(zip(pixels, prepared, strict=True))
        return part

    @torch.inference_mode()
    def ask(
        self, column: Column, images: Sequence[int], numbers: Sequence[int]
    ) -> Iterator[Answered]:
        """The answers to the questions ``numbers``, all of them about ``images``, batch by batch.
        Those with faults are left out.

        Raises:
            PrunusError: the column cannot be asked of this model, or of one of the questions.
        """
        part, asker = self.part(images), self.asker(column.budget)
        wanted = [part.encoded[number] for number in numbers if number in part.encoded]
        for group in in_batches(wanted, self._setting.batch):
            found = asker.ask(column.cell, group, part.shown)
            costs: list[dict[str, Any] | None] = [figures(one) for one in found.reports]
            if column.cell.name == "dense":
                costs = [figures(self._dense(one, part)) for one in group]
            costs = costs or [None] * len(group)
            rows = zip(group, found.texts, costs, strict=True)
            yield Answered({one.query: Given(text, cost) for one, text, cost in rows})

    def _dense(self, one: Encoded, part: _Part) -> Report:
        """What one prompt costs the unmodified model."""
        image = self.data.queries[one.query].image
        return dense_report(self.model, self.inputs(one, part.shown[image]))

    def inputs(self, one: Encoded, shown: Prepared) -> dict[str, Any]:
        """One prompt with its pixels, on the model's device."""
        padded: Mapping[str, Any] = left_padded([one.ids], 0, [one.per_token])
        ids = {name: values.to(self.model.device) for name, values in padded.items()}
        return ids | self.vision.inputs([shown], in_tower=True)
