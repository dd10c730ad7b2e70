"""Asks a model conversations in batches, and times it: what lmms-eval's interface is made of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prunus.compare.desk import figures
from prunus.compare.identity import digest, seen_digest
from prunus.errors import PrunusError, one_line
from prunus.families import family_of
from prunus.inference.answer import decode, dense_report
from prunus.inference.batches import Prepared, Vision, left_padded
from prunus.inference.inputs import Parts, process
from prunus.inference.turns import Seen, Turn, converse
from prunus.lmms.generation import Generation
from prunus.method import Method
from prunus.method.budget import Meaning
from prunus.results.report import Report
from prunus.run import Run, prune


@dataclass(frozen=True)
class Prompt:
    """One encoded conversation: its ``text``, its ``parts``, a digest of all that it ``shows``
    (None: nothing), and whether that is images or videos (``kind``)."""

    text: str
    parts: Parts
    shows: str | None
    kind: str = "image"

    @property
    def like(self) -> frozenset[str]:
        """Equal for prompts that may stand in one batch."""
        return frozenset(self.parts.pixels)


@dataclass(frozen=True)
class Reply:
    """An answer with what it cost: ``figures`` as of :data:`prunus.compare.desk.FIGURES`; seconds
    to the ``first`` new token of its batch (None: not seen, with beams) and to its last. Of a
    question that was refused, ``error`` says why."""

    text: str
    prompt_tokens: int = 0
    new_tokens: int = 0
    shows: str | None = None
    kind: str = "image"
    figures: dict[str, Any] = field(default_factory=dict)
    first: float | None = None
    seconds: float = 0.0
    batch: int = 1
    error: str | None = None


class Clock:
    """A streamer for ``generate`` that notes when the first new tokens of a batch are there."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first: float | None = None
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """Called with the prompt first, then with the new tokens of each step."""
        if self._prompt_seen and self.first is None:
            self.first = time.perf_counter() - self.began
        self._prompt_seen = True

    def end(self) -> None:
        """Called once when generation is over."""

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self.began


class Respondent:
    """A loaded model under one setting of prunus.

    Args:
        model, processor: as :func:`prunus.load` gives them.
        methods: what prunes, None: nothing does.
        meaning: what the methods' ``keep`` counts.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        methods: Sequence[Method] | None = None,
        meaning: Meaning = "nominal",
    ) -> None:
        self.model, self.processor = model, processor
        self.family = family_of(model)
        self.vision = Vision(model)
        self.tokenizer = getattr(processor, "tokenizer", processor)
        pad = self.tokenizer.pad_token_id
        self._pad = pad if pad is not None else self.tokenizer.eos_token_id
        self.under(methods, meaning)

    def under(self, methods: Sequence[Method] | None, meaning: Meaning) -> None:
        """Ask under these methods from now on.

        Raises:
            PrunusError: they do not fit the model.
        """
        # What has no keep has nothing to reach: it is as it is published.
        counted = all(getattr(one, "keep", None) is not None for one in methods or ())
        self._meaning: Meaning = meaning if counted else "nominal"
        self._methods = methods
        if methods is not None:
            # What was learned for the model is loaded once, and not for every batch.
            self._methods = tuple(method.bind(self.family) for method in methods)
            self.pruning()

    @property
    def prunes(self) -> bool:
        """Whether any method does."""
        return self._methods is not None

    def pruning(self) -> Run:
        """The run that prunes one batch, not attached."""
        assert self._methods is not None
        return prune(self.model, self._methods, budget=self._meaning)

    def encode(self, turns: Sequence[Turn]) -> Prompt:
        """One conversation as the model takes it.

        Raises:
            PrunusError: the model cannot be asked it.
        """
        found = converse(self.processor, turns)
        encoded = process(
            self.processor, found.text, found.images, found.videos, family=self.family
        )
        seen: list[Seen] = [*found.images, *found.videos]
        shows = digest([seen_digest(one) for one in seen])[:16] if seen else None
        kind = "video" if found.videos else "image"
        return Prompt(found.text, Parts.of(encoded), shows, kind)

    @torch.inference_mode()
    def answer(self, prompts: Sequence[Prompt], generation: Generation) -> list[Reply]:
        """Answers to a batch, in its order. What cannot stand in one batch is asked in several.

        Raises:
            PrunusError: the method, or its budget, refuses one of them.
        """
        found: dict[int, Reply] = {}
        for group in self._alike(prompts):
            together = [prompts[number] for number in group]
            found |= zip(group, self._answer(together, generation), strict=True)
        return [found[number] for number in range(len(prompts))]

    def _alike(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """Numbers of prompts that are put into one batch."""
        kinds: dict[frozenset[str], list[int]] = {}
        for number, prompt in enumerate(prompts):
            kinds.setdefault(prompt.like, []).append(number)
        for group in kinds.values():
            try:
                self.pixels([prompts[number] for number in group])
            except PrunusError:  # pictures of sizes that fit into no batch: one by one
                yield from ([number] for number in group)
            else:
                yield group

    def pixels(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """What is shown in a batch, on the model's device.

        Raises:
            PrunusError: pictures whose sizes do not go together.
        """
        prepared = [Prepared(prompt.parts.pixels, None, None) for prompt in prompts]
        return self.vision.inputs(prepared, in_tower=True)

    def _inputs(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Arguments of ``generate``: padded on the left."""
        parts = [prompt.parts for prompt in prompts]
        padded = left_padded([p.ids for p in parts], self._pad, [p.per_token for p in parts])
        ids = {name: values.to(self.model.device) for name, values in padded.items()}
        return ids | self.pixels(prompts)

    def _answer(self, prompts: Sequence[Prompt], generation: Generation) -> list[Reply]:
        inputs = self._inputs(prompts)
        options = {**generation.options, "pad_token_id": self._pad}
        reports: Sequence[Report]
        clock = Clock()
        if options["num_beams"] == 1:
            options["streamer"] = clock
        # Without anything to be seen there is nothing to prune.
        if self._methods is None or not prompts[0].like:
            output = self.model.generate(**inputs, **options)
            seconds = clock.seconds
            reports = [self.dense(prompt) for prompt in prompts]
        else:
            with self.pruning() as run:
                output = self.model.generate(**inputs, **options)
                seconds = clock.seconds
                reports = run.reports()
        if len(reports) != len(prompts):
            raise RuntimeError(f"{len(reports)} reports of {len(prompts)} prompts")
        length = inputs["input_ids"].shape[1]
        texts = decode(self.processor, output, length)
        return [
            Reply(
                generation.cut(text),
                len(prompt.parts.ids),
                self._count(row[length:]),
                prompt.shows,
                prompt.kind,
                figures(report),
                clock.first,
                seconds,
                len(prompts),
            )
            for prompt, text, row, report in zip(prompts, texts, output, reports, strict=True)
        ]

    def _count(self, new: Tensor) -> int:
        """New tokens without the padding behind the end of an answer."""
        ends = (new == self._pad).nonzero().flatten()
        return int(ends[0]) + 1 if len(ends) else len(new)

    def dense(self, prompt: Prompt) -> Report:
        """What the prompt costs the unmodified model."""
        padded = left_padded([prompt.parts.ids], self._pad, [prompt.parts.per_token])
        return dense_report(self.model, padded | prompt.parts.pixels)

    def refusals(self, prompts: Sequence[Prompt], generation: Generation) -> list[Reply]:
        """As :meth:`answer`, but what is refused has a reply that says so, and the others their
        answers."""
        try:
            return self.answer(prompts, generation)
        except PrunusError as error:
            if len(prompts) == 1:
                return [refused(error, prompts[0].shows)]
        return [self.refusals([prompt], generation)[0] for prompt in prompts]


def refused(error: PrunusError, shows: str | None = None) -> Reply:
    """What stands in the place of an answer: not an empty one, and not like any."""
    why = one_line(error)
    return Reply(f"[prunus refused: {why}]", shows=shows, error=why)
