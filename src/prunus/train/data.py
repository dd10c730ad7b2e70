"""From a question with its answer to what the model is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from prunus.errors import PrunusError
from prunus.inference.inputs import Parts, placed, process
from prunus.inference.prompts import render
from prunus.method.question import marks_of, question_mask, visual_ids
from prunus.tasks.faults import at

_IGNORE = -100


@dataclass(frozen=True)
class Example:
    """A question about images (in front of it, in this order) that are opened when they are
    needed, and its answer. ``type`` is only reported; ``place`` is where a file has it.

    Raises:
        PrunusError: no image, or an empty question or answer.
    """

    images: tuple[Callable[[], Image.Image], ...]
    question: str
    answer: str
    type: str = "all"
    place: str = ""

    def __post_init__(self) -> None:
        with at(self.place):
            if not self.images:
                raise PrunusError(f"no image belongs to the question {self.question!r}: give one")
            if not self.question.strip() or not self.answer.strip():
                raise PrunusError(
                    f"question {self.question!r} with answer {self.answer!r}: neither may be empty"
                )


@dataclass(frozen=True)
class Batch:
    """Prompts with their answers, padded on the right.

    Attributes:
        inputs: of the model's ``forward``: ``input_ids`` and ``attention_mask`` int64 ``[B, L]``,
            and what else the processor gives (pixels, grids, modality of each token).
        labels: int64 ``[B, L]``, -100 outside the answers.
        question: bool ``[B, L]``, see :func:`prunus.method.question.question_mask`.
        left_out: why examples were replaced by others, see :func:`.loader.batches`.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    question: Tensor
    left_out: tuple[str, ...] = ()

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same on ``device``, pixels in ``dtype``."""
        moved = placed(self.inputs, device, dtype)
        return Batch(moved, self.labels.to(device), self.question.to(device), self.left_out)


def collate(processor: Any, examples: Sequence[Example]) -> Batch:
    """Encode ``examples`` in the form of the processor's chat template (LLaVA-1.5's own where it
    has none). An answer is what the template puts behind the generation prompt, up to and with the
    end-of-sequence token, which is added where the template writes none.

    Raises:
        PrunusError: a text that holds a placeholder of images, a tokenizer without a token that
            ends a sequence, or a template in which no question can be found.
    """
    return joined(processor, [encode(processor, example) for example in examples])


def joined(processor: Any, rows: Sequence[Row]) -> Batch:
    """Encoded examples as one batch."""
    marks = marks_of(processor)
    tokenizer = getattr(processor, "tokenizer", processor)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    prompts = [len(row.prompt) for row in rows]
    lengths = [len(row.prompt) + len(row.answer) for row in rows]
    ids = torch.full((len(rows), max(lengths)), pad, dtype=torch.int64)
    labels = torch.full_like(ids, _IGNORE)
    inputs = {"input_ids": ids, "attention_mask": torch.zeros_like(ids)}
    for number, row in enumerate(rows):
        start, end = prompts[number], lengths[number]
        ids[number, :start], ids[number, start:end] = row.prompt, row.answer
        labels[number, start:end] = row.answer
        inputs["attention_mask"][number, :end] = 1
        for name, values in row.per_token.items():
            table = inputs.setdefault(name, torch.zeros(ids.shape, dtype=values.dtype))
            table[number, :start] = values
    question = question_mask(
        ids,
        torch.tensor(prompts) - 1,
        inputs["attention_mask"].bool(),
        marks,
        torch.isin(ids, torch.tensor(visual_ids(processor))),
    )
    for name in rows[0].per_image:
        inputs[name] = torch.cat([row.per_image[name] for row in rows])
    return Batch(inputs, labels, question)


@dataclass(frozen=True)
class Row:
    """Ids of prompt and answer ``[t]``, and what else the processor says, by name: of each token of
    the prompt ``[t]``, and of its images, one behind the other."""

    prompt: Tensor
    answer: Tensor
    per_token: dict[str, Tensor]
    per_image: dict[str, Tensor]


def encode(processor: Any, example: Example) -> Row:
    """One example in the form of the processor's chat template.

    Raises:
        PrunusError: as of :func:`collate`, or an image that cannot be read; where the example has a
            place in a file, the message starts with it.
    """
    with at(example.place):
        shown = ["image"] * len(example.images)
        prompt = render(processor, example.question, shown)
        whole = render(processor, example.question, shown, answer=example.answer)
        images = [open_image() for open_image in example.images]
        parts = Parts.of(process(processor, prompt, images))
        answer = _answer(processor, prompt, whole, example.answer)
        return Row(parts.ids, answer, parts.per_token, parts.pixels)


def _answer(processor: Any, prompt: str, whole: str, answer: str) -> Tensor:
    """Int64 ``[a]``: the ``answer`` as the template continues the ``prompt``, with its end;
    ``whole`` is the prompt with it."""
    tokenizer = getattr(processor, "tokenizer", processor)
    end = tokenizer.eos_token_id
    if end is None:
        raise PrunusError("the tokenizer has no end-of-sequence token, so no answer would ever end")
    begun = tokenizer(prompt)["input_ids"]
    ids = tokenizer(whole.rstrip())["input_ids"]
    if ids[: len(begun)] == begun:
        ids = ids[len(begun) :]
    else:  # the tokenizer joins the last sign of the prompt and the first of the answer
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    ids = ids[: ids.index(end)] if end in ids else ids
    return torch.tensor([*ids, end], dtype=torch.int64)
