"""A run over a file of rows: what is left to do goes to the workers, what they find is written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.batch import pool, with_vllm
from prunus.batch.answerer import Job, Outcome
from prunus.batch.ledger import Format, Ledger, finish, settle
from prunus.batch.pool import Workers
from prunus.batch.rows import Ref, Rows, scan
from prunus.batch.with_vllm import Engine
from prunus.errors import PrunusStateError
from prunus.io.claim import claim
from prunus.io.files import make_folder

#: Rows answered and rows refused so far, those of earlier runs among them.
Step = Callable[[int, int], None]


@dataclass(frozen=True)
class Done:
    """How a run ended: ``rows`` of the file, how many are ``answered`` and ``refused`` in all, how
    many ``now``, and the ``seconds`` of this run."""

    rows: int
    answered: int
    refused: int
    now: int
    seconds: float


@dataclass(frozen=True)
class Options:
    """How a run is made: rows at a time, the format of answers, rows in each file, and whether what
    was refused before is asked again."""

    batch: int = 8
    kind: Format = "parquet"
    part_rows: int = 1000
    refused_again: bool = False


def run(
    job: Job,
    data: Path,
    folder: Path,
    workers: Workers | Engine,
    options: Options,
    begun: Callable[[int, int], None],
    step: Step,
) -> Done:
    """Answer each row of ``data`` that has no answer in ``folder``.

    Args:
        job: what is done with a row.
        data: JSON lines or Parquet.
        folder: of the answers, made if it is missing.
        workers: who answers: workers on Ray, or vLLM's engine.
        options: see there.
        begun: is called once with the number of rows, and of those done already.
        step: is called after each batch.

    Raises:
        PrunusError: nothing can be answered, or somebody else writes there; what was found before
            is written.
    """
    began = time.monotonic()
    rows = scan(data)
    with claim(make_folder(folder)):
        settle(folder, _settings(job, data, rows, options, workers))
        ledger = Ledger(folder, options.kind, options.part_rows)
        if options.refused_again:
            ledger.ask_refused_again()
        todo = [ref for ref in rows.refs if ref.id not in ledger.done]
        count, before = len(rows.refs) + len(rows.bad), len(ledger.done)
        begun(count, before)
        ledger.take({"id": one.id, "number": one.number, "reason": one.reason} for one in rows.bad)
        try:
            if todo:
                for found in _outcomes(job, data.absolute(), todo, workers, options):
                    ledger.take(found)
                    step(len(ledger.answered), len(ledger.refused))
        finally:
            ledger.flush()
        lost = [ref.number for ref in todo if ref.id not in ledger.done]
        if lost:
            raise PrunusStateError(
                f"{len(lost)} rows came back with nothing (the first is row {lost[0]}): give the "
                "same command again"
            )
        own = {ref.id for ref in rows.refs} | {one.id for one in rows.bad}
        done = Done(
            count,
            len(ledger.answered & own),
            len(ledger.refused & own),
            len(ledger.done) - before,
            time.monotonic() - began,
        )
        finish(folder, {**dataclasses.asdict(done), "workers": workers.count})
    return done


def in_batches(refs: Sequence[Ref], size: int) -> Iterator[Sequence[Ref]]:
    """As many at a time, in their order."""
    for at in range(0, len(refs), size):
        yield refs[at : at + size]


def _outcomes(
    job: Job, data: Path, todo: Sequence[Ref], workers: Workers | Engine, options: Options
) -> Iterator[list[Outcome]]:
    if isinstance(workers, Engine):
        return with_vllm.outcomes(job, data, todo, workers)
    return pool.outcomes(job, data, list(in_batches(todo, options.batch)), workers)


def _settings(
    job: Job, data: Path, rows: Rows, options: Options, workers: Workers | Engine
) -> dict[str, Any]:
    """What must be the same for a run to go on; it may do so on another device."""
    own = {name: value for name, value in dataclasses.asdict(job).items() if name != "device"}
    engine = "vllm" if isinstance(workers, Engine) else "transformers"
    about = {"data": data.name, "digest": rows.digest, "format": options.kind}
    return {**own, **about, "engine": engine}
