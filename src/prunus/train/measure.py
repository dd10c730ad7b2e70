"""How well a model answers held-out questions under the selector that is being trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator

from prunus.errors import PrunusError
from prunus.evaluate.cells import Cell
from prunus.evaluate.runner import Evaluation
from prunus.method import Method
from prunus.tasks.faults import Faults
from prunus.tasks.sets import EvalSet

_BATCH = 16


class Stopped(Exception):
    """Measuring was given up."""


def measure(
    accelerator: Accelerator,
    model: Any,
    processor: Any,
    data: EvalSet,
    method: Method,
    dense: bool = False,
    stop: Callable[[], bool] = lambda: False,
    faults: Faults | None = None,
) -> dict[str, float]:
    """Ask ``data``'s questions, shared out over all processes.

    Returns:
        ``questions``: how many; ``accuracy``: share of right greedy answers (exact match);
        ``kept``: mean number of visual tokens kept per question; with ``dense`` also the unpruned
        model's accuracy.

    Raises:
        Stopped: in all processes, once ``stop`` says so in any of them.
        PrunusError: a question that cannot be asked, unless ``faults`` skip it.
    """
    queries = data.queries[accelerator.process_index :: accelerator.num_processes]
    own = replace(data, queries=queries)
    cells = [Cell(method.name, method=method), *[Cell("dense")] * dense]
    right, kept, asked, gave_up = [0.0] * len(cells), 0.0, 0, False

    def look(count: int) -> None:
        if stop():
            raise Stopped

    try:
        if queries:
            evaluation = Evaluation(model, processor, own, cells, faults)
            evaluation.run(batch=_BATCH, step=look)
            answered, found = evaluation.so_far()
            if found:
                asked = len(answered.queries)
                right = [float(one.right.sum()) for one in found]
                kept = found[0].figures["kept"] * asked
    except Stopped:
        gave_up = True  # the others hear of it where all processes meet
    sums = torch.tensor([float(gave_up), asked, kept, *right], device=accelerator.device)
    stopped, count, kept, *right = accelerator.reduce(sums, "sum").tolist()
    if stopped:
        raise Stopped
    if not count:
        raise PrunusError("none of the held-out questions can be asked")
    names = ("accuracy", "dense")
    shares = {name: value / count for name, value in zip(names, right, strict=False)}
    return {"questions": count, "kept": kept / count, **shares}
