"""Benchmarks of lmms-eval: the model is loaded once, and asked under every method."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from prunus.compare.identity import plain
from prunus.compare.store import Store as Answers
from prunus.errors import PrunusError
from prunus.evaluate.cells import DENSE, Cell
from prunus.evaluate.output import versions
from prunus.inference.named import build_methods
from prunus.lmms.asking import Respondent
from prunus.lmms.running import Bench, Benches, check_installed
from prunus.lmms.settings import Settings
from prunus.method.budget import Meaning
from prunus.reproduce.judge import Measured
from prunus.reproduce.library import Benchmark, benchmarks
from prunus.reproduce.recipe import Arm


class Tasks:
    """Asks the tasks of ``columns``.

    Args:
        model: as of :func:`prunus.load`.
        columns: what is asked.
        limit: only the first so many questions of each.
        dtype, device: how and where the model is loaded.
        place: where answers and files of tasks go.

    Raises:
        PrunusError: lmms-eval is not installed.
    """

    def __init__(
        self,
        model: str,
        columns: Sequence[Benchmark],
        limit: int | None,
        dtype: str,
        device: str,
        place: Path,
    ) -> None:
        check_installed()
        self._columns = [one.name for one in columns]
        self._tasks = list(dict.fromkeys(one.task for one in columns))
        self._benches: dict[Meaning, Benches] = {}
        self._settings = Settings(pretrained=model, dtype=dtype, device=device)
        self._limit, self._place = limit, place

    def jobs(self, arm: Arm) -> Sequence[str]:
        return self._columns

    def identity(self, arm: Arm, job: str) -> dict[str, Any]:
        methods = build_methods(arm.method, arm.keep, [])
        one = benchmarks()[job]
        return {
            "judge": "lmms-eval",
            "task": one.task,
            "metrics": [*one.metrics, one.scale],
            "limit": self._limit,
            "model": _which(self._settings.pretrained),
            "dtype": self._settings.dtype,
            "methods": [plain(one) for one in methods or ()],
            "budget": arm.meaning,
            "versions": versions(),
        }

    def measure(self, arm: Arm, job: str) -> Measured:
        one = benchmarks()[job]
        methods = build_methods(arm.method, arm.keep, [])
        cell = Cell(DENSE) if methods is None else Cell(arm.words, method=methods)
        benches = self._under(arm.meaning)
        asked = benches.outcomes(one.task, [cell], self._respondent, self._answers, lambda _: None)
        found = asked[cell.key]
        if len(found) != 1:
            raise PrunusError(f"{one.task} is {len(found)} tasks, of which no one score is known")
        [outcome] = found
        missing = [name for name in one.metrics if name not in outcome["metrics"]]
        if missing:
            there = ", ".join(outcome["metrics"]) or "none"
            raise PrunusError(f"{one.task} reports no {missing[0]}: metrics are {there}")
        value = one.scale * sum(outcome["metrics"][name] for name in one.metrics)
        seconds = sum(outcome["e2e"])
        return Measured(
            {job: value}, {"questions": len(outcome["samples"]), "seconds": round(seconds, 1)}
        )

    def _under(self, meaning: Meaning) -> Benches:
        if meaning not in self._benches:
            files = self._place / "files"
            bench = Bench(self._settings, self._tasks, self._limit, None, meaning, files)
            self._benches[meaning] = Benches(bench)
        return self._benches[meaning]

    @cached_property
    def _respondent(self) -> Respondent:
        from prunus.lmms.model import loaded

        return loaded(self._settings)

    @cached_property
    def _answers(self) -> Answers:
        return Answers(self._place)


def _which(model: str) -> Any:
    """The name of a model, or, of a folder, its files with their sizes and times."""
    place = Path(model).expanduser()
    if not place.is_dir():
        return model
    files = [(path, path.stat()) for path in sorted(place.rglob("*")) if path.is_file()]
    return [[str(path.relative_to(place)), one.st_size, one.st_mtime_ns] for path, one in files]
