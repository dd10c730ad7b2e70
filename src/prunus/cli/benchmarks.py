"""``prunus eval --tasks``: benchmarks of lmms-eval, as runs of a comparison."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.cli import typed
from prunus.cli.console import err, quiet_transformers
from prunus.cli.errors import BadInput, option

if TYPE_CHECKING:
    from prunus.compare.contract import Comparison
    from prunus.evaluate.cells import Cell
    from prunus.lmms.outcome import TaskOutcome
    from prunus.lmms.running import Bench


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line."""

    model: str
    tasks: Sequence[str]
    include: Path | None
    methods: Sequence[str]
    keeps: Sequence[int | float]
    budget: str
    seeds: int
    limit: int | None
    batch: int
    output: Path
    skip: bool
    dtype: str
    device: str


def benchmarks(asked: Asked) -> Comparison:
    """Ask, and put a comparison together; what was answered is in ``OUTPUT/store``.

    Raises:
        PrunusError: lmms-eval is not installed, nothing of the names exists, or a question is
            refused.
    """
    from prunus.cli.loading import load_model
    from prunus.compare.output import needed
    from prunus.compare.store import Store
    from prunus.evaluate.cells import BLIND, GROUND_TRUTH, OTHER, make_cells
    from prunus.io.claim import claim
    from prunus.lmms.asking import Respondent
    from prunus.lmms.running import Benches

    needed()
    for name in asked.methods:
        if name in (GROUND_TRUTH, BLIND, OTHER):
            raise BadInput(
                f"{name} needs the questions of prunus: leave it out, or leave out --tasks"
            )
    cells = make_cells(asked.methods, asked.keeps, range(asked.seeds))
    bench = _bench(asked)
    benches = Benches(bench)
    with ExitStack() as held:
        # The folders are claimed now, not after hours of work.
        for folder in (asked.output, asked.output / "store"):
            with option("--output", folder):
                held.enter_context(claim(folder))
        store = Store(asked.output / "store")
        quiet_transformers()
        began = time.perf_counter()
        network, processor = load_model(asked.model, asked.dtype, asked.device)
        respondent = Respondent(network, processor)
        given = {
            task: benches.outcomes(task, cells, respondent, store, _say) for task in asked.tasks
        }
        for line in store.told:
            _say(line)
        seconds = time.perf_counter() - began
        return _comparison(asked, cells, given, respondent, seconds)


def _bench(asked: Asked) -> Bench:
    from typing import cast

    from prunus.lmms.running import Bench
    from prunus.lmms.settings import Settings
    from prunus.method.budget import Meaning

    settings = Settings(
        pretrained=asked.model,
        dtype=asked.dtype,
        device=asked.device,
        batch_size=asked.batch,
        on_error="record" if asked.skip else "stop",
    )
    return Bench(
        settings,
        asked.tasks,
        asked.limit,
        asked.include,
        cast("Meaning", asked.budget),
        asked.output / "files",
    )


def _comparison(
    asked: Asked,
    cells: Sequence[Cell],
    given: dict[str, dict[str, list[TaskOutcome]]],
    respondent: Any,
    seconds: float,
) -> Comparison:
    from prunus.compare.columns import Column
    from prunus.compare.contract import FORMAT, Comparison
    from prunus.compare.facts import facts_of
    from prunus.compare.notes import notes_of_rows, notes_of_statistics
    from prunus.compare.published import published_tables
    from prunus.lmms.comparison import make_run, meaning_of
    from prunus.lmms.notes import GENERAL, notes_of

    runs, notes = [], []
    for outcomes in given.values():
        for number in range(len(outcomes[cells[0].key])):
            own = {cell.key: outcomes[cell.key][number] for cell in cells}
            runs.append(make_run(asked.model, own, cells, asked.budget))
            notes += notes_of(own)
    family = respondent.family
    columns = [
        Column(cell.fitted(family), "nominal", (meaning_of(cell, asked.budget),)) for cell in cells
    ]
    return Comparison(
        format=FORMAT,
        title="prunus eval --tasks " + ",".join(asked.tasks),
        made=_made(asked, respondent, seconds),
        notes=[*GENERAL, *notes_of_statistics(0)[1:], *notes_of_rows(runs), *notes],
        budgets=[float(one) for one in asked.keeps],
        methods=facts_of(columns, family.depth),
        runs=runs,
        pictures=[],
        published=published_tables(),
    )


def _made(asked: Asked, respondent: Any, seconds: float) -> Any:
    from importlib.metadata import version

    import torch

    from prunus.compare.contract import Made
    from prunus.evaluate.output import versions

    network = respondent.model
    return Made(
        command=typed.command(),
        versions={**versions(), "lmms_eval": version("lmms_eval")},
        device=str(network.device),
        threads=torch.get_num_threads(),
        dtype={asked.model: str(network.dtype).removeprefix("torch.")},
        seconds=seconds,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings={
            "tasks": list(asked.tasks),
            "methods": list(asked.methods),
            "keeps": [float(one) for one in asked.keeps],
            "budget": asked.budget,
            "seeds": asked.seeds,
            "limit": asked.limit,
            "batch": asked.batch,
        },
    )


def _say(line: str) -> None:
    err().print(line, markup=False, soft_wrap=True)
