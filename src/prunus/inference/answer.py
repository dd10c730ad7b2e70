"""One question to one model under one method, with what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache

from prunus.cost.report import build_report
from prunus.engine.cache import windows_of
from prunus.families import family_of
from prunus.grid import AnyGrid
from prunus.inference.inputs import find_spots
from prunus.method import Method
from prunus.method.budget import Meaning
from prunus.results.record import Record
from prunus.results.report import Report
from prunus.results.trace import TraceEntry
from prunus.run import prune


@dataclass(frozen=True)
class Answer:
    """The decoded ``text`` of ``new_tokens`` tokens, with the report and trace of its prompt, the
    ``grids`` of its images and videos, and the ``seconds`` that generating took."""

    text: str
    new_tokens: int
    report: Report
    trace: Sequence[TraceEntry] = field(default_factory=list)
    grids: Sequence[AnyGrid] = ()
    seconds: float = 0.0


class TokenSteps:
    """A streamer for ``generate`` that counts tokens and shows nothing of them."""

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """Called with the prompt first, then with each new token."""
        if self._prompt_seen:
            self._step()
        self._prompt_seen = True

    def end(self) -> None:
        """Called once when generation is over."""


def answer(
    model: Any,
    processor: Any,
    inputs: Mapping[str, Tensor],
    methods: Sequence[Method] | None,
    max_new_tokens: int,
    step: Callable[[], None] | None = None,
    budget: Meaning = "nominal",
) -> Answer:
    """Generate greedily for one prompt; ``methods`` None leaves the model as it is. ``step`` is
    called per token; ``budget`` is what their ``keep`` counts.

    Raises:
        PrunusError: the method refuses this model, or the budget cannot be reached.
    """
    streamer = None if step is None else TokenSteps(step)
    options = {"max_new_tokens": max_new_tokens, "do_sample": False, "streamer": streamer}
    began = time.perf_counter()
    if methods is None:
        output = model.generate(**inputs, **options)
        seconds = time.perf_counter() - began
        report, trace = dense_report(model, inputs), []
    else:
        with prune(model, methods, budget=budget) as run:
            output = model.generate(**inputs, **options)
            seconds = time.perf_counter() - began
            report, trace = run.report(), list(run.trace)
    text = decode(processor, output, inputs["input_ids"].shape[1])[0]
    new = output.shape[1] - inputs["input_ids"].shape[1]
    # A method in the tower may have gone around the pooling of a video, whose grid is another then.
    grids = trace[0].grid[0] if trace else grids_of(model, inputs)[0]
    return Answer(text, new, report, trace, grids, seconds)


def decode(processor: Any, output: Tensor, prompt: int) -> list[str]:
    """The texts behind the first ``prompt`` tokens of each row of ``output``, int64 ``[B, t]``."""
    tokenizer = getattr(processor, "tokenizer", processor)
    texts = tokenizer.batch_decode(output[:, prompt:], skip_special_tokens=True)
    return [str(text).strip() for text in texts]


def grids_of(model: Any, inputs: Mapping[str, Tensor]) -> list[list[AnyGrid]]:
    """For each sample of an encoded prompt the grids of its images and videos, in their order."""
    return [[spot.grid for spot in row] for row in find_spots(family_of(model), inputs)]


def dense_report(model: Any, inputs: Mapping[str, Tensor]) -> Report:
    """The report of the unmodified model for one encoded prompt: nothing is saved."""
    family = family_of(model)
    ids = inputs["input_ids"]
    spots, length = find_spots(family, inputs), ids.shape[1]
    visual = [sum(spot.grid.size for spot in own) for own in spots]
    windows = windows_of(DynamicCache(config=family.text_config), len(family.layers))
    starts = [0 if window is None else max(0, length - window + 1) for window in windows]
    cached: list[Sequence[int]] = [[length - start] * len(visual) for start in starts]
    record = Record(
        samples=len(visual),
        original=visual,
        text=[length - count for count in visual],
        images=[[spot.grid for spot in own] for own in spots],
        per_layer=[visual] * len(family.layers),
        resident=[
            [sum(int((spot.positions >= start).sum()) for spot in own) for own in spots]
            for start in starts
        ],
        cached=cached,
        cached_dense=cached,
        nominal=[float(count) for count in visual],
        element_size=model.dtype.itemsize,
    )
    return build_report(record, family, "none")
