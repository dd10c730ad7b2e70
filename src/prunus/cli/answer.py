"""One question to one model under one method: what ``run`` and ``demo`` are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunus.grid import Grid
    from prunus.method.base import Method
    from prunus.results.report import Report
    from prunus.results.trace import TraceEntry


@dataclass(frozen=True)
class Answer:
    """The decoded ``text`` of ``new_tokens`` tokens, with the report and trace of its prompt, and
    the ``grids`` of its images and videos."""

    text: str
    new_tokens: int
    report: Report
    trace: Sequence[TraceEntry] = field(default_factory=list)
    grids: Sequence[Grid] = ()


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
    inputs: Any,
    methods: Sequence[Method] | None,
    max_new_tokens: int,
    step: Callable[[], None] | None = None,
) -> Answer:
    """Generate greedily; ``methods`` None leaves the model as it is. ``step`` is called per token.

    Raises:
        BadInput: the method refuses this model.
    """
    streamer = None if step is None else TokenSteps(step)
    options = {"max_new_tokens": max_new_tokens, "do_sample": False, "streamer": streamer}
    if methods is None:
        output = model.generate(**inputs, **options)
        report, trace = dense_report(model, inputs), []
    else:
        from prunus.run import prune

        pruning = prune(model, methods)
        with pruning as run:
            output = model.generate(**inputs, **options)
            report, trace = run.report(), list(run.trace)
    new = output[0, inputs["input_ids"].shape[1] :]
    tokenizer = getattr(processor, "tokenizer", processor)
    text = tokenizer.decode(new, skip_special_tokens=True).strip()
    return Answer(text, len(new), report, trace, grids_of(model, inputs)[0])


def grids_of(model: Any, inputs: Any) -> list[list[Grid]]:
    """For each sample of an encoded prompt the grids of its images and videos, in their order."""
    from prunus.engine.prompt import find_images
    from prunus.families import family_of

    family = family_of(model)
    ids = inputs["input_ids"]
    prompt = find_images(family, family.placeholders(ids, None), family.grids_of(inputs))
    grids: list[list[Grid]] = [[] for _ in ids]
    for image in prompt.images:
        grids[image.sample].append(image.grid)
    return grids


def dense_report(model: Any, inputs: Any) -> Report:
    """The report of the unmodified model for one encoded prompt: nothing is saved."""
    from prunus.cost.report import build_report
    from prunus.families import family_of
    from prunus.results.record import Record

    family = family_of(model)
    ids = inputs["input_ids"]
    grids = grids_of(model, inputs)
    visual = [sum(grid.size for grid in own) for own in grids]
    depth = len(family.layers)
    record = Record(
        samples=len(visual),
        original=visual,
        text=[ids.shape[1] - count for count in visual],
        images=grids,
        per_layer=[visual] * depth,
        resident=[visual] * depth,
        nominal=[float(count) for count in visual],
        element_size=model.dtype.itemsize,
    )
    return build_report(record, family, "none")
