"""What needs lmms-eval: `make test-lmms` runs it, in an environment where it is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

if importlib.util.find_spec("lmms_eval") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the local tasks."""
    from tests.lmms.installed.local_tasks import write_tasks

    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder, count=8, new=6)
    return folder


@pytest.fixture(scope="session")
def run(tasks: Path) -> Callable[..., dict[str, Any]]:
    """Asks tasks of a model by its arguments, as lmms-eval does, and gives its results."""
    from lmms_eval import evaluator
    from lmms_eval.tasks import TaskManager

    manager = TaskManager("WARNING", include_path=str(tasks), include_defaults=False)

    def ask(names: list[str], arguments: str, simple: bool = False, batch: int = 4) -> Any:
        return evaluator.simple_evaluate(
            model="prunus",
            model_args=arguments,
            tasks=list(names),
            batch_size=batch,
            device="cpu",
            task_manager=manager,
            bootstrap_iters=0,
            force_simple=simple,
        )

    return ask
