"""Qwen2.5-VL served pruned by vLLM: images and videos of many sizes, original M-RoPE positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prunus
from prunus.inference.prompts import build_prompt
from prunus.tasks.evalset import load_evalset
from prunus.tasks.scenes import render
from tests.vllm.asked import Asked, by_prune, by_vllm, swap
from tests.vllm.conftest import Start, model_of

pytest.importorskip("vllm", reason="make vllm-env makes an environment with it")

KEEP = "0.25"
SERVED = ("clse@ahead", "divprune", "evoprune", "evs", "pooling", "tome", "vidcom2", "visionzip")


@pytest.fixture(scope="module")
def ours() -> tuple[Any, Any]:
    return prunus.load("tiny-qwen", dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from prunus.vllm.folder import write_builtin

    return write_builtin("tiny-qwen", tmp_path_factory.mktemp("models") / "tiny-qwen")


@pytest.fixture(scope="module")
def llm(start: Start, folder: Path) -> Any:
    plain = {"enable_prefix_caching": False, "mm_processor_cache_gb": 0}
    return start(folder, "clse@ahead", KEEP, **plain)  # so that the first layer is there


def prompts(processor: Any, first: int = 0) -> list[Asked]:
    """One image, two of other sizes, and none, with questions."""
    items = [item for item in load_evalset() if item.questions][first : first + 3]
    images = [render(item.scene) for item in items]
    images = [image.crop((0, 0, *to)) for image, to in zip(images, SIZES, strict=True)]
    texts = [item.questions[0].text for item in items]
    return [
        Asked(build_prompt(processor, texts[0], 1), images[:1]),
        Asked(build_prompt(processor, texts[1], 2), images[1:]),
        Asked(build_prompt(processor, texts[2], 0)),
    ]


SIZES = ((192, 192), (192, 128), (144, 192))


def film(seed: int) -> Any:
    """Eight frames of changing blocks, and when they were taken."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 255, (8, 4, 4, 3), dtype=np.uint8)
    pixels = frames.repeat(32, axis=1).repeat(24, axis=2)
    told = {
        "total_num_frames": 8,
        "fps": 2.0,
        "duration": 4.0,
        "frames_indices": list(range(8)),
        "do_sample_frames": False,
        "video_backend": "opencv",
    }
    return pixels, told


@pytest.mark.parametrize("method", SERVED)
def test_the_tokens_and_answers_of_prune(ours: tuple[Any, Any], llm: Any, method: str) -> None:
    swap(model_of(llm), method, KEEP)
    asked = prompts(ours[1], 3 * SERVED.index(method))
    for one, said in zip(asked, by_vllm(llm, asked), strict=True):
        wanted = by_prune(*ours, one, method, KEEP, "original")
        assert said.kept == wanted.kept
        assert said.answer == wanted.answer


@pytest.mark.parametrize("method", ["divprune", "evs", "vidcom2"])
def test_videos(ours: tuple[Any, Any], llm: Any, method: str) -> None:
    swap(model_of(llm), method, KEEP)
    pixels, told = film(1)
    question = build_prompt(ours[1], "what is moving ?", 0, 1)
    one = Asked(question, videos=[pixels], metadata=[told])
    said = by_vllm(llm, [one])[0]
    wanted = by_prune(*ours, one, method, KEEP, "original")
    assert said.kept == wanted.kept and len(said.kept[0]) == 4 * 8 * 6 // 4
    assert said.answer == wanted.answer
