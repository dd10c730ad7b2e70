"""Runs benchmarks of lmms-eval in this process: the model is loaded once, and asked under every
method. What was asked is stored, task by task."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prunus.compare.identity import cell_identity, digest, plain
from prunus.compare.store import Store
from prunus.errors import PrunusError, brief, shown
from prunus.evaluate.cells import Cell
from prunus.evaluate.output import versions
from prunus.lmms.asking import Respondent
from prunus.lmms.ended import Ended
from prunus.lmms.outcome import TaskOutcome, outcomes_of
from prunus.lmms.settings import Settings
from prunus.method.budget import Meaning

_LIKELIHOODS = ("loglikelihood", "multiple_choice")


def check_installed() -> None:
    """Raise PrunusError where lmms-eval is not installed: says how it is."""
    if importlib.util.find_spec("lmms_eval") is None:
        raise PrunusError(
            "benchmarks are asked by lmms-eval, which is not in this environment: pip install "
            "'prunus[lmms]' in an environment of its own (in a clone of prunus `make lmms-env` "
            "makes one; then .venv-lmms/bin/prunus eval --tasks ...)"
        )


@dataclass(frozen=True)
class Bench:
    """What is asked, of whom.

    Attributes:
        settings: how the model was loaded; its method is not used.
        tasks: as lmms-eval names them; tasks of a group are runs of their own.
        limit: only the first so many questions of each.
        include: a folder with tasks of the user's.
        meaning: what ``keep`` of the cells counts.
        files: where tasks write files of their own (submissions).
    """

    settings: Settings
    tasks: Sequence[str]
    limit: int | None
    include: Path | None
    meaning: Meaning
    files: Path


class Benches:
    """The tasks of a :class:`Bench`, loaded when they are asked.

    Raises:
        PrunusError: lmms-eval is not installed, or there is no such task.
    """

    def __init__(self, bench: Bench) -> None:
        check_installed()
        from lmms_eval.tasks import TaskManager

        self._bench = bench
        include = None if bench.include is None else str(bench.include)
        with _elsewhere():
            self._manager = TaskManager("WARNING", include_path=include, model_name="prunus")
        for name in bench.tasks:
            if name not in self._manager.all_tasks:
                close = get_close_matches(name, self._manager.all_tasks, n=3)
                hint = f": did you mean {', '.join(close)}?" if close else ""
                raise PrunusError(
                    f"lmms-eval {version('lmms_eval')} has no task {shown(name)}{hint} (all: "
                    "python -m lmms_eval --tasks list)"
                )

    def outcomes(
        self,
        task: str,
        cells: Sequence[Cell],
        respondent: Respondent,
        store: Store,
        say: Callable[[str], None],
    ) -> dict[str, list[TaskOutcome]]:
        """What each cell answered to ``task``, by its key: from the store, or asked now.

        Raises:
            PrunusError: the task cannot be loaded, or a question is refused; what was asked before
                is stored.
        """
        found: dict[str, list[TaskOutcome]] = {}
        for cell in cells:
            name = self._identity(task, cell)
            known = store.read("benchmarks", name)
            if known is None:
                say(f"{task}: {cell.key}")
                respondent.under(cell.methods or None, self._bench.meaning)
                known = self._ask(task, cell, respondent)
                store.write("benchmarks", name, known)
            found[cell.key] = known
        return found

    def _identity(self, task: str, cell: Cell) -> dict[str, Any]:
        """All that the answers depend on, the tasks of lmms-eval by its version."""
        bench = self._bench
        made = versions()
        return {
            "model": _model(bench.settings),
            "task": task,
            "include": None if bench.include is None else plain(bench.include),
            "limit": bench.limit,
            "cell": cell_identity(cell, bench.meaning),
            "batch": bench.settings.batch_size,
            "on_error": bench.settings.on_error,
            "versions": {name: made[name] for name in ("prunus", "torch", "transformers")}
            | {"lmms_eval": version("lmms_eval")},
        }

    def _ask(self, task: str, cell: Cell, respondent: Respondent) -> list[TaskOutcome]:
        from lmms_eval import evaluator
        from tenacity import RetryError

        from prunus.lmms.model import PrunusChat, PrunusSimple

        settings = self._bench.settings
        kind = PrunusSimple if self._compares_likelihoods(task) else PrunusChat
        try:
            with _elsewhere():
                results = evaluator.simple_evaluate(
                    model=kind(respondent=respondent, settings=settings),
                    model_args=f"pretrained={settings.pretrained}",
                    tasks=[task],
                    batch_size=settings.batch_size,
                    limit=self._bench.limit,
                    bootstrap_iters=0,
                    task_manager=self._manager,
                    verbosity="WARNING",
                    cli_args=self._arguments(cell),
                )
        except Ended as end:
            raise PrunusError(
                f"{task}: {cell.key}: {end.refusal} (--on-error skip records it as the answer of "
                "its question)"
            ) from end.refusal
        except (OSError, RetryError) as error:
            cause = error.last_attempt.exception() if isinstance(error, RetryError) else error
            if not isinstance(cause, OSError):
                raise
            raise PrunusError(
                f"{task}: its data cannot be had (lmms-eval takes them from the Hugging Face hub, "
                f"or from its cache): {brief(cause)}"
            ) from error
        return outcomes_of(results)

    def _compares_likelihoods(self, task: str) -> bool:
        """Whether a task, or one of a group, chooses between given answers: lmms-eval asks such
        tasks of simple models alone."""
        from lmms_eval.utils import load_yaml_config

        known = self._manager.task_index[task]
        config: dict[str, Any] = {}
        if known.get("yaml_path", -1) != -1:
            config = load_yaml_config(known["yaml_path"], mode="full")
        if known["type"] in ("task", "python_task"):
            return config.get("output_type") in _LIKELIHOODS
        members = known["task"] if known.get("task", -1) != -1 else config.get("task", [])
        return any(isinstance(one, str) and self._compares_likelihoods(one) for one in members)

    def _arguments(self, cell: Cell) -> argparse.Namespace:
        """What tasks ask lmms-eval's command line: where their files go."""
        place = self._bench.files / digest(cell.key)[:8]
        return argparse.Namespace(
            output_path=str(place),
            process_with_media=True,
            reasoning_tags=None,
            log_samples_suffix="prunus",
            tasks=",".join(self._bench.tasks),
        )


def _model(settings: Settings) -> dict[str, Any]:
    """Which model it is: of a folder its content, of a name on the hub its commit."""
    from prunus.builtin import BUILTIN

    name = settings.pretrained
    found: dict[str, Any] = {"dtype": settings.dtype, "device": settings.device}
    if name in BUILTIN:
        return found | {"builtin": name}
    place = Path(name).expanduser()
    if place.is_dir():
        return found | {"content": plain(place)}
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name)
    return found | {"hub": name, "commit": getattr(config, "_commit_hash", None)}


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """What lmms-eval and its tasks print goes to standard error: standard output is ours."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
