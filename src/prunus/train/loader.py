"""Batches from any step on: which example comes when is a function of seed and position."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from prunus.errors import PrunusError
from prunus.method.fields import check_fields
from prunus.tasks.faults import Faults, OnError
from prunus.train.data import Batch, Row, encode, joined
from prunus.train.sources import Source


@dataclass(frozen=True)
class Part:
    """Which share of a step's ``batch`` examples one process takes, in ``accumulate`` pieces.

    Raises:
        PrunusError: the batch cannot be split evenly.
    """

    batch: int
    accumulate: int = 1
    processes: int = 1
    process: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.accumulate < 1:
            raise PrunusError(f"accumulate={self.accumulate}: give at least 1")
        if self.batch % (self.accumulate * self.processes):
            raise PrunusError(
                f"batch={self.batch} cannot be split evenly over {self.processes} "
                f"process{'es' * (self.processes > 1)} times {self.accumulate} accumulated pieces: "
                "choose a multiple"
            )

    @property
    def size(self) -> int:
        """Examples of one piece."""
        return self.batch // (self.accumulate * self.processes)

    def positions(self, step: int, piece: int) -> range:
        """Positions, in the order of the whole run, of one piece of a step."""
        start = step * self.batch + (piece * self.processes + self.process) * self.size
        return range(start, start + self.size)


def batches(
    source: Source,
    processor: Any,
    part: Part,
    seed: int,
    start: int,
    workers: int = 0,
    on_error: OnError = "stop",
) -> Iterator[Batch]:
    """The pieces of all steps from ``start`` on, one after the other and without end.

    What comes is a function of ``seed`` and the step: nothing is replayed to go on, and ``workers``
    (processes that open images and encode; 0: this one) change nothing. The global random state
    is neither read nor changed.

    With ``on_error="skip"`` the next example takes the place of one that cannot be used, and the
    batch says why (:attr:`Batch.left_out`).

    Raises:
        PrunusError: an example that cannot be used, or with "skip" only such examples.
    """
    loader: DataLoader[Any] = DataLoader(
        _Numbers(),
        batch_sampler=_Indices(source.size, part, seed, start),  # type: ignore[arg-type]
        collate_fn=partial(_batch, source, processor, on_error),
        num_workers=workers,
        worker_init_fn=_leave_signals,
        generator=torch.Generator(),
    )
    for one in loader:
        if isinstance(one, PrunusError):
            raise one
        yield one


class _Numbers(Dataset[int]):
    """Every number is its own item: examples are made where batches are."""

    def __getitem__(self, number: int) -> int:
        return number


def _batch(
    source: Source, processor: Any, on_error: OnError, numbers: Sequence[int]
) -> Batch | PrunusError:
    """The examples ``numbers`` as a batch. An error is handed over as a value: raised in a worker,
    it would reach the main process with the worker's traceback as its message."""
    faults = Faults(on_error)
    try:
        rows = [_row(source, processor, faults, number) for number in numbers]
        return replace(joined(processor, rows), left_out=tuple(faults.found))
    except PrunusError as error:
        return error


def _row(source: Source, processor: Any, faults: Faults, number: int) -> Row:
    """Example ``number``, or the first one behind it that can be used."""
    for beyond in range(source.size or 1):
        try:
            return encode(processor, source[(number + beyond) % (source.size or number + 1)])
        except PrunusError as error:
            faults.take(error)
    raise PrunusError(f"none of the examples can be used: {faults.found[0]}")


def _leave_signals(worker: int) -> None:
    """Ctrl-C goes to all processes of a terminal: the main one decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class _Indices:
    """The indices of the examples of every piece."""

    size: int | None
    part: Part
    seed: int
    start: int

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while True:
            for piece in range(self.part.accumulate):
                places = self.part.positions(step, piece)
                yield [index_at(place, self.size, self.seed) for place in places]
            step += 1


def index_at(position: int, size: int | None, seed: int) -> int:
    """The example at ``position`` of an endless sequence of epochs, each of which holds every one
    of ``size`` examples once, in an order of its own. An endless source (``size`` None) is taken
    as it comes."""
    if size is None:
        return position
    epoch, at = divmod(position, size)
    return int(_epoch(size, seed, epoch)[at])


@lru_cache(maxsize=2)
def _epoch(size: int, seed: int, number: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, number, 6]).permutation(size)
