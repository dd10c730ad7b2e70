"""Batches from any step on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from prunus.errors import PrunusError
from prunus.fields import check_fields
from prunus.stepwise.train.data import Batch, collate
from prunus.stepwise.train.order import index_at
from prunus.stepwise.train.sources import Source


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
    source: Source, processor: Any, part: Part, seed: int, start: int, workers: int = 0
) -> Iterator[Batch]:
    """The pieces of all steps from ``start`` on, one after the other and without end.

    What comes is a function of ``seed`` and the step: nothing is replayed to go on, and ``workers``
    (processes that open images and encode; 0: this one) change nothing. The global random state
    is neither read nor changed.
    """
    loader: DataLoader[Any] = DataLoader(
        source,  # type: ignore[arg-type]  # anything with __getitem__ will do
        batch_sampler=_Indices(source.size, part, seed, start),  # type: ignore[arg-type]
        collate_fn=partial(collate, processor),
        num_workers=workers,
        worker_init_fn=_leave_signals,
        generator=torch.Generator(),
    )
    return iter(loader)


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
