"""Engines of vLLM in this process, and the same model under prunus.prune."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0",  # so that a test sees what was kept
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_NO_USAGE_STATS="1",
    VLLM_LOGGING_LEVEL="INFO",
)

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """``start(folder, method, keep, **options)``: an engine of vLLM with what prunes; the one
    before it ends."""
    pytest.importorskip("vllm", reason="make vllm-env makes an environment with it")
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    from prunus.vllm.folder import config_of, family_named
    from prunus.vllm.setting import Setting

    running: list[Any] = []

    def stop() -> None:
        while running:
            running.pop().llm_engine.engine_core.shutdown()
            cleanup_dist_env_and_memory()

    def begin(folder: Path, method: str | None, keep: str | None = None, **options: Any) -> Any:
        stop()
        given = {
            "max_model_len": 1536,
            "enforce_eager": True,
            "dtype": "float32",
            "max_num_seqs": 8,
            **options,
        }
        if method is not None:
            name = family_named(str(folder), config_of(str(folder)))
            given["hf_overrides"] = Setting(method, keep).overrides(name)
        running.append(LLM(str(folder), **given))
        return running[0]

    yield begin
    stop()


def model_of(llm: Any) -> Any:
    """The model that an engine in this process runs."""
    return llm.llm_engine.model_executor.driver_worker.worker.model_runner.model
