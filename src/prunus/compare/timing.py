"""How long a prompt takes: short, interleaved with the dense model, and alone on the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from prunus.bench.clock import interleaved, ratios
from prunus.compare.columns import DENSE
from prunus.compare.contract import Time
from prunus.compare.course import Course, Ledger
from prunus.compare.desk import Desk
from prunus.compare.store import Store
from prunus.inference.batches import Encoded, Prepared
from prunus.run import prune

#: Rounds that are not counted.
WARM_UP = 2
#: Columns that are timed in turn with one dense model.
_TOGETHER = 6


def time_columns(
    course: Course,
    desk: Desk,
    ledgers: Sequence[Ledger],
    rounds: int,
    store: Store,
    step: Callable[[int], None],
) -> dict[int, Time]:
    """Quartiles of prefill times against dense, by the index in ``ledgers``: see
    :func:`seconds_of`."""
    found = seconds_of(course, desk, ledgers, rounds, store, step)
    return {place: _quartiles(own) for place, own in sorted(found.items())}


@torch.inference_mode()
def seconds_of(
    course: Course,
    desk: Desk,
    ledgers: Sequence[Ledger],
    rounds: int,
    store: Store,
    step: Callable[[int], None],
) -> dict[int, dict[str, list[float]]]:
    """Seconds of a prefill in each round, "own" and "dense", by the index in ``ledgers``; those
    known from an earlier run on this machine are taken from ``store``.

    A prefill is ``generate`` with one new token for one prompt, from pixels on: tower, projector,
    choice and language model. The question is one with a middling number of visual tokens.
    """
    number = typical(course)
    one, shown = prompt_of(desk, course, number)
    found: dict[int, dict[str, list[float]]] = {}
    todo = []
    for place, ledger in enumerate(ledgers):
        about = {"column": ledger.identity, "question": ledger.names[number], **machine(rounds)}
        known = store.read("times", about)
        if known is None:
            todo.append((place, ledger, about))
        else:
            found[place] = known
            step(1)
    for start in range(0, len(todo), _TOGETHER):
        group = todo[start : start + _TOGETHER]
        times = _timed(desk, one, shown, [ledger for _, ledger, _ in group], rounds)
        for at, (place, _, about) in enumerate(group):
            found[place] = {"dense": times[DENSE], "own": times[str(at)]}
            store.write("times", about, found[place])
            step(1)
    return found


def machine(rounds: int) -> dict[str, Any]:
    """What a time depends on beyond what is timed."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "machine": [platform.node(), platform.machine(), platform.processor(), os.cpu_count(), gpu],
    }


def typical(course: Course) -> int:
    """The question whose number of visual tokens is in the middle."""
    given = course.dense.given
    counts = {n: (given[n].cost or {}).get("original") or 0.0 for n in course.numbers}
    ordered = sorted(counts, key=lambda n: (counts[n], n))
    return ordered[len(ordered) // 2]


def prompt_of(desk: Desk, course: Course, number: int) -> tuple[Encoded, Prepared]:
    """A question, encoded, and what the model is shown."""
    image = course.data.queries[number].image
    part = desk.part([image])
    return part.encoded[number], part.shown[image]


def _timed(
    desk: Desk, one: Encoded, shown: Prepared, ledgers: Sequence[Ledger], rounds: int
) -> dict[str, list[float]]:
    model = desk.model
    inputs = desk.inputs(one, shown)
    options = {"max_new_tokens": 1, "do_sample": False, "pad_token_id": 0}

    def action() -> object:
        return model.generate(**inputs, **options)

    around: dict[str, Callable[[], AbstractContextManager[object]]] = {DENSE: nullcontext}
    for at, ledger in enumerate(ledgers):
        column, image = ledger.column, desk.data.queries[one.query].image
        method, budget = desk.asker(column.budget).method(column.cell, [one], {image: shown})

        def pruned(method: Any = method, budget: Any = budget) -> AbstractContextManager[object]:
            return prune(model, method, budget=budget)

        around[str(at)] = pruned
    actions: Mapping[str, Callable[[], object]] = dict.fromkeys(around, action)
    return interleaved(actions, model.device, rounds, WARM_UP, around)


def _quartiles(own: Mapping[str, Sequence[float]]) -> Time:
    low, middle, high = ratios(own["own"], own["dense"])
    return Time(median=middle, q1=low, q3=high, rounds=len(own["own"]))
