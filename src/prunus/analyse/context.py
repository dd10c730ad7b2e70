"""What every analysis starts from: model, questions in batches, and the dense model's answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunus.errors import PrunusError
from prunus.evaluate.asker import answer_tokens
from prunus.inference.batches import Encoded, Prepared, Vision, encode, in_batches, left_padded
from prunus.tasks.sets import EvalSet

Step = Callable[[int], None]
"""Called with a number of prompts after each call of the model."""

#: New tokens per answer where no true answer says how long one is.
_OPEN_ANSWER = 12


@dataclass(frozen=True)
class Batch:
    """Some questions as the model is given them: their numbers, ``input_ids`` and what else there
    is per token ``[b, t]``, and the prepared image of each."""

    queries: tuple[int, ...]
    text: dict[str, Tensor]
    shown: tuple[Prepared, ...]


@dataclass(frozen=True)
class Answers:
    """Greedy answers to all questions: their ``texts``, and ``logprobs``, float32 ``[questions,
    vocabulary]``, of the first answer token."""

    texts: list[str]
    logprobs: NDArray[np.float32]


class Context:
    """One model and the questions that all analyses ask it. Images are encoded once.

    Args:
        model: a supported model in evaluation mode.
        processor: its processor.
        data: the questions to ask, see :func:`~prunus.analyse.questions.spread`.
        pool: the set that they were taken from, with more questions about the same images.
        batch: prompts per call of the model.
        seed: of everything that is drawn by lot.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        data: EvalSet,
        pool: EvalSet | None = None,
        *,
        batch: int = 16,
        seed: int = 0,
    ) -> None:
        if not data.queries:
            raise PrunusError("there are no questions to ask")
        self.model, self.processor, self.data, self.pool = model, processor, data, pool or data
        self.batch, self.seed = batch, seed
        self.vision = Vision(model)
        self.tokenizer = getattr(processor, "tokenizer", processor)
        pad = self.tokenizer.pad_token_id
        self._pad = int(self.tokenizer.eos_token_id if pad is None else pad)
        self._shown: dict[int, Prepared] = {}
        #: What has been measured: analyses share settings, signals and dense answers.
        self.memo: dict[Hashable, Any] = {}

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.vision.family.layers)

    @property
    def known(self) -> bool:
        """Whether every question has a true answer."""
        return all(query.answer for query in self.data.queries)

    @property
    def measure_name(self) -> str:
        """What counts as success: ``accuracy``, or ``agreement`` with the dense model's answers
        where no true ones are known."""
        return "accuracy" if self.known else "agreement"

    @property
    def things(self) -> str:
        """What is asked about: ``images`` or ``videos``."""
        return "videos" if self.data.clips else "images"

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Image number ``[questions]`` of each question: questions about one image share its
        luck, and intervals must know."""
        return np.array([query.image for query in self.data.queries], dtype=np.int64)

    @cached_property
    def batches(self) -> list[Batch]:
        """The questions of :attr:`data` in batches, of equal length wherever possible."""
        return self.prepare(self.data)

    @torch.inference_mode()
    def prepare(self, data: EvalSet) -> list[Batch]:
        """Questions of ``data`` (whose images or videos are those of :attr:`pool`) in batches."""
        by_image: dict[int, list[int]] = {}
        for number, query in enumerate(data.queries):
            by_image.setdefault(query.image, []).append(number)
        encoded: list[Encoded] = []
        for image, numbers in by_image.items():
            seen = data.seen(image)
            for number in numbers:
                one, others = encode(self.processor, number, data.queries[number].text, seen)
                encoded.append(one)
            if image not in self._shown:
                self._shown[image] = self.vision.prepare([others])[0]
        return [self._batch(data, group) for group in in_batches(encoded, self.batch)]

    def _batch(self, data: EvalSet, group: Sequence[Encoded]) -> Batch:
        padded = left_padded(
            [one.ids for one in group], self._pad, [one.per_token for one in group]
        )
        return Batch(
            tuple(one.query for one in group),
            {name: values.to(self.model.device) for name, values in padded.items()},
            tuple(self._shown[data.queries[one.query].image] for one in group),
        )

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Arguments of ``forward`` or ``generate`` for ``batch``."""
        return {**batch.text, **self.vision.inputs(batch.shown)}

    @torch.inference_mode()
    def answer(self, batch: Batch, into: Answers) -> None:
        """Generate greedily, and write what comes out into the rows of ``batch``."""
        inputs = self.inputs(batch)
        output = self.model.generate(
            **inputs,
            max_new_tokens=self._new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self._pad,
            return_dict_in_generate=True,
            output_logits=True,
        )
        new = output.sequences[:, inputs["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        first = output.logits[0].float().log_softmax(dim=-1).cpu().numpy()
        for number, text, row in zip(batch.queries, texts, first, strict=True):
            into.texts[number] = text.strip()
            into.logprobs[number] = row

    def blank(self) -> Answers:
        """Room for the answers to all questions."""
        count = len(self.data.queries)
        vocabulary = self.vision.family.text_config.vocab_size
        return Answers([""] * count, np.zeros((count, vocabulary), dtype=np.float32))

    @cached_property
    def _new_tokens(self) -> int:
        return answer_tokens(self.processor, self.data) if self.known else _OPEN_ANSWER
