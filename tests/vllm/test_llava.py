"""LLaVA-1.5 served pruned by vLLM: the tokens and the answers of prunus.prune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import prunus
from prunus.inference.prompts import build_prompt
from prunus.tasks.evalset import load_evalset
from prunus.tasks.scenes import render
from tests.vllm.asked import SERVED, Asked, by_prune, by_vllm, swap
from tests.vllm.conftest import Start, model_of

pytest.importorskip("vllm", reason="make vllm-env makes an environment with it")

KEEP = "0.25"


@pytest.fixture(scope="module")
def ours() -> tuple[Any, Any]:
    return prunus.load("tiny-llava", dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from prunus.vllm.folder import write_builtin

    return write_builtin("tiny-llava", tmp_path_factory.mktemp("models") / "tiny-llava")


@pytest.fixture(scope="module")
def llm(start: Start, folder: Path) -> Any:
    plain = {"enable_prefix_caching": False, "mm_processor_cache_gb": 0}
    return start(folder, "clse@ahead", KEEP, **plain)  # so that the first layer is there


def prompts(processor: Any, first: int = 0) -> list[Asked]:
    """One image, two, and none, with questions."""
    items = [item for item in load_evalset() if item.questions][first : first + 3]
    images = [render(item.scene) for item in items]
    texts = [item.questions[0].text for item in items]
    return [
        Asked(build_prompt(processor, texts[0], 1), images[:1]),
        Asked(build_prompt(processor, texts[1], 2), images[1:]),
        Asked(build_prompt(processor, texts[2], 0)),
    ]


@pytest.mark.parametrize("method", SERVED)
def test_the_tokens_and_answers_of_prune(ours: tuple[Any, Any], llm: Any, method: str) -> None:
    swap(model_of(llm), method, KEEP)
    asked = prompts(ours[1], 3 * SERVED.index(method))
    found = by_vllm(llm, asked)
    for one, said in zip(asked, found, strict=True):
        wanted = by_prune(*ours, one, method, KEEP, "compact")
        assert said.kept == wanted.kept
        assert said.answer == wanted.answer
        assert [len(kept) for kept in said.kept] == [144] * len(one.images)
    alone = [by_vllm(llm, [one])[0].answer for one in asked[:2]]  # its image was seen before
    assert alone == [said.answer for said in found[:2]]
