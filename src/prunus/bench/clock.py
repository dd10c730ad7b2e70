"""Time, on the device that does the work."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeVar

import torch

T = TypeVar("T")

#: Rounds from which on quartiles say something: of fewer they lie between two or three numbers.
FEWEST = 5


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, from an idle device until everything that it started is done."""
    wait(device)
    began = time.perf_counter()
    action()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Until ``device`` is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(
    actions: Mapping[str, Callable[[], T]],
    rounds: int,
    warm_up: int,
    around: Mapping[str, Callable[[], AbstractContextManager[object]]],
    step: Callable[[], None] = lambda: None,
    most: float = math.inf,
) -> dict[str, list[T]]:
    """What each action gives in each round, within the block that ``around`` opens for it, if it
    names one. A round runs all of them, the next one backwards, so that what drifts falls on all
    alike; ``step`` is called behind each round, also those that only warm up. After ``most``
    seconds no further round begins, but there are three."""
    begun = time.monotonic()
    found: dict[str, list[T]] = {name: [] for name in actions}
    order = list(actions)
    for number in range(warm_up + rounds):
        for name in order if number % 2 else order[::-1]:
            with around.get(name, nullcontext)():
                one = actions[name]()
            if number >= warm_up:
                found[name].append(one)
        step()
        if number >= warm_up + 2 and time.monotonic() - begun > most:
            break
    return found


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int,
    warm_up: int,
    around: Mapping[str, Callable[[], AbstractContextManager[object]]],
) -> dict[str, list[float]]:
    """Seconds of each action in each round of :func:`in_turn`; what ``around`` does is not
    timed."""
    timed = {name: partial(seconds, action, device) for name, action in actions.items()}
    return in_turn(timed, rounds, warm_up, around)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles of the ratios of pairs of one round."""
    return quartiles([a / b for a, b in zip(ours, theirs, strict=True)])
