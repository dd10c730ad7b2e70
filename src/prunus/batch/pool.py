"""Workers on Ray Data: a pool of actors, each with the pruned model.

Ray starts an actor that died again, and repeats what it was doing. Here is noted what workers were
doing, so that a row which kills them (memory) is found, and left out, instead of being tried for
ever.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.batch.answerer import Answerer, Job, Outcome, refused
from prunus.batch.rows import Reader, Ref
from prunus.errors import PrunusError, brief, one_line

#: A row that ended its worker so often, alone, is left out.
_DEATHS = 2
#: Starts of a worker without an answer in between, for each worker.
_STARTS = 4
_PATIENCE = 10.0  # seconds for a cluster to answer
_BLOCKS = 4096  # pieces of work that Ray hands out, at most


@dataclass(frozen=True)
class Workers:
    """How many there are, what each is given (``cpus``, ``gpus``), and the ``address`` of the
    cluster that they are on; None: this machine."""

    count: int = 1
    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None


class Desk:
    """What workers say that they begin and finish: an actor, so that it outlives them."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        self._started = 0

    def started(self) -> int:
        """A worker starts: how many have since somebody finished something."""
        self._started += 1
        return self._started

    def begun(self, what: str) -> int:
        """Somebody begins ``what``: how often that was begun and not finished."""
        self._begun[what] = self._begun.get(what, 0) + 1
        return self._begun[what]

    def finished(self, what: str) -> None:
        """Somebody finished it."""
        self._begun.pop(what, None)
        self._started = 0


class Worker:
    """An actor: a few rows in, what became of them out, both as JSON."""

    def __init__(self, job: Job, data: str, desk: Any, workers: int, threads: int) -> None:
        import ray
        import torch

        self._ray, self._desk = ray, desk
        self._fatal: str | None = None
        torch.set_num_threads(threads)
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        starts = ray.get(desk.started.remote())
        if starts > _STARTS * workers:
            self._fatal = (
                f"workers were started {starts} times, and none of them answered anything: does "
                f"{job.model} fit {workers} times into the memory? Give fewer --workers"
            )
            return
        try:
            self._answerer = Answerer(job, Reader(Path(data)))
        except PrunusError as error:
            self._fatal = one_line(error)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        if self._fatal is not None:
            return {"found": json.dumps({"fatal": self._fatal})}
        refs = [Ref(*one) for one in json.loads(item["refs"])]
        batch = f"batch {refs[0].number}"
        tries = self._ray.get(self._desk.begun.remote(batch))
        groups = [refs] if tries == 1 else [[one] for one in refs]
        found: list[Outcome] = []
        for group in groups:
            found += self._answer(group) if tries == 1 else self._watched(group[0])
        self._ray.get(self._desk.finished.remote(batch))
        return {"found": json.dumps({"rows": found})}

    def _answer(self, refs: Sequence[Ref]) -> list[Outcome]:
        return self._answerer.answer(refs)

    def _watched(self, ref: Ref) -> list[Outcome]:
        """One row of a batch whose worker died."""
        if self._ray.get(self._desk.begun.remote(ref.id)) > _DEATHS:
            reason = f"row {ref.number}: its worker died each time it was asked ({_DEATHS} times)"
            found = [refused(ref, reason)]
        else:
            found = self._answer([ref])
        self._ray.get(self._desk.finished.remote(ref.id))
        return found


def outcomes(
    job: Job, data: Path, batches: Sequence[Sequence[Ref]], workers: Workers
) -> Iterator[list[Outcome]]:
    """What becomes of each batch of rows of the file ``data``, in any order.

    Raises:
        PrunusError: Ray is missing or cannot be reached; the model cannot be loaded or pruned.
    """
    ray = _start(workers)
    try:
        from ray.data import ActorPoolStrategy, DataContext

        DataContext.get_current().enable_progress_bars = False
        desk = ray.remote(num_cpus=0)(Desk).remote()
        items = [
            {"refs": json.dumps([[r.number, r.id, r.at, r.size] for r in batch])}
            for batch in batches
        ]
        pieces = ray.data.from_items(items, override_num_blocks=min(len(items), _BLOCKS))
        found = pieces.map(
            Worker,
            fn_constructor_args=(job, str(data), desk, workers.count, workers.cpus),
            compute=ActorPoolStrategy(size=workers.count),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus or None,
        )
        for row in found.iter_rows():
            one = json.loads(row["found"])
            if "fatal" in one:
                raise PrunusError(one["fatal"])
            yield one["rows"]
    finally:
        ray.shutdown()


def _start(workers: Workers) -> Any:
    """Ray, on this machine or as a client of a cluster; it tells nobody that it is used."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Else its first line is an error, that actors which may start again had better not do so.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PrunusError(
            f"batches need Ray Data: pip install 'prunus[ray]' ({brief(error)})"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r"`[\w.]+` is deprecated")  # Ray's, of its own settings
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if workers.address is None:
        cpus = workers.count * workers.cpus + 1
        ray.init(num_cpus=cpus, include_dashboard=False, address="local", **quiet)
        return ray
    check_listening(workers.address)
    try:
        ray.init(address=workers.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise PrunusError(
            f"--address {workers.address}: no Ray cluster there: {brief(error)}"
        ) from error
    return ray


def check_listening(address: str) -> None:
    """Raise PrunusError where nothing listens at ``address``, if that is HOST:PORT or
    ray://HOST:PORT: Ray itself would wait for it, for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():  # "auto", or what Ray knows
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise PrunusError(f"--address {address}: no Ray cluster there: {brief(error)}") from error
