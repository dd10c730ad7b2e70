"""One worker's model: rows in, answers with what was kept out. Knows nothing of other workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from prunus.batch.rows import Asked, Reader, Ref
from prunus.errors import PrunusError, one_line
from prunus.families import family_of
from prunus.inference.answer import decode, grids_of
from prunus.inference.batches import IMAGE_SIZES, joined, left_padded
from prunus.inference.inputs import Parts, placed, process
from prunus.inference.named import build_methods
from prunus.inference.prompts import build_prompt
from prunus.inference.sampling import Sampling
from prunus.inference.videos import Excerpt, open_videos
from prunus.io.images import decode_image, open_image
from prunus.loading import load
from prunus.method.budget import Meaning
from prunus.run import Run, prune

#: What becomes of a row: ``id`` and ``number``, and ``answer`` with its counts, or a ``reason``.
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is done with every row; the names as on the command line."""

    model: str
    method: str
    keep: str | None = None
    params: tuple[str, ...] = ()
    budget: Meaning = "nominal"
    max_new_tokens: int = 32
    dtype: str = "auto"
    device: str = "auto"
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class _Encoded:
    ref: Ref
    parts: Parts


class Answerer:
    """The model of ``job``, pruned, and the rows that ``reader`` reads.

    Raises:
        PrunusError: the model cannot be loaded, or not be pruned so.
    """

    def __init__(self, job: Job, reader: Reader) -> None:
        self._job, self._reader = job, reader
        place = job.device
        if place == "auto":
            place = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any
        self._model, self._processor = load(job.model, dtype=job.dtype, device=place)
        self._family = family_of(self._model)
        methods = build_methods(job.method, job.keep, job.params)
        self._run: Run | None = None
        if methods is not None:
            run = prune(self._model, list(methods), budget=job.budget, processor=self._processor)
            self._run = run.attach()
        tokenizer = getattr(self._processor, "tokenizer", self._processor)
        pad = tokenizer.pad_token_id
        self._pad = int(pad if pad is not None else tokenizer.eos_token_id)

    def answer(self, refs: Sequence[Ref]) -> list[Outcome]:
        """Answers to rows, greedy, in one batch; a batch in which a row is refused, or that is too
        large for the memory, row by row."""
        found: list[Outcome] = []
        encoded: list[_Encoded] = []
        for ref in refs:
            try:
                encoded.append(_Encoded(ref, self._encode(self._reader.read(ref), ref)))
            except PrunusError as error:
                found.append(refused(ref, one_line(error)))
        return found + self._answered(encoded)

    def _answered(self, rows: Sequence[_Encoded]) -> list[Outcome]:
        if not rows:
            return []
        try:
            return self._generate(rows)
        except (PrunusError, torch.OutOfMemoryError) as error:
            if len(rows) == 1:
                return [refused(rows[0].ref, one_line(error))]
        return [outcome for row in rows for outcome in self._answered([row])]

    def _encode(self, row: Asked, ref: Ref) -> Parts:
        pictures, videos = opened(row, f"row {ref.number}", self._job.sampling)
        text = build_prompt(self._processor, row.prompt, len(pictures), len(videos))
        return Parts.of(process(self._processor, text, pictures, videos, self._family))

    def _generate(self, rows: Sequence[_Encoded]) -> list[Outcome]:
        inputs = self._inputs([row.parts for row in rows])
        output = self._model.generate(
            **inputs,
            max_new_tokens=self._job.max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self._pad,
        )
        length = inputs["input_ids"].shape[1]
        texts = decode(self._processor, output, length)
        lengths = [self._length(new) for new in output[:, length:]]
        counts = self._counts(inputs)
        return [
            {"id": row.ref.id, "number": row.ref.number, "answer": text, "new_tokens": new, **own}
            for row, text, new, own in zip(rows, texts, lengths, counts, strict=True)
        ]

    def _inputs(self, parts: Sequence[Parts]) -> dict[str, Any]:
        padded = left_padded(
            [one.ids for one in parts], self._pad, [one.per_token for one in parts]
        )
        pixels = [one.pixels for one in parts]
        pixels = [self._family.behind(one, pixels[:at]) for at, one in enumerate(pixels)]
        names = dict.fromkeys(name for one in pixels for name in one)
        merged = {
            name: joined([one[name] for one in pixels if name in one], IMAGE_SIZES in names)
            for name in names
        }
        return placed({**padded, **merged}, self._model.device, self._model.dtype)

    def _length(self, new: Tensor) -> int:
        """Tokens of an answer, its end among them; the rest is padding."""
        ends = self._model.generation_config.eos_token_id
        known = torch.as_tensor(ends if ends is not None else [], device=new.device).reshape(-1)
        at = torch.isin(new, known).nonzero().flatten()
        return int(at[0]) + 1 if len(at) else len(new)

    def _counts(self, inputs: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Of each row: visual tokens, those left at the last layer, and their mean over layers."""
        if self._run is None:
            totals = [sum(grid.size for grid in own) for own in grids_of(self._model, inputs)]
            return [_count(total, total, total) for total in totals]
        tokens = [report["tokens"] for report in self._run.reports()]
        return [_count(one["original"], one["kept"], one["average"]) for one in tokens]


def _count(original: float, kept: float, average: float) -> dict[str, Any]:
    return {"visual_tokens": round(original), "kept": round(kept), "average": float(average)}


def opened(row: Asked, where: str, sampling: Sampling) -> tuple[list[Image], list[Excerpt]]:
    """The pictures and videos of a row, which messages call ``where``.

    Raises:
        PrunusError: one is missing or broken.
    """
    pictures = [
        decode_image(one, "bytes", where) if isinstance(one, bytes) else open_image(one, where)
        for one in row.images
    ]
    return pictures, [open_videos([one], sampling)[0] for one in row.videos]


def refused(ref: Ref, reason: str) -> Outcome:
    """A row that has no answer."""
    return {"id": ref.id, "number": ref.number, "reason": reason}
