"""Other families served pruned by vLLM: tiny random models with their real processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import prunus
from tests.support import families
from tests.support.families import LLAVA_NEXT, QWEN2_VL, QWEN3_VL, Kind, picture
from tests.support.kinds.internvl import INTERNVL
from tests.vllm.asked import Asked, by_prune, by_vllm, swap
from tests.vllm.conftest import Start, model_of

pytest.importorskip("vllm", reason="make vllm-env makes an environment with it")

KEEP = "0.5"
#: The first one starts the engine, so that the first decoder layer is there where one runs it.
METHODS = {
    "internvl": ("clse@ahead", "divprune", "visionzip", "uniform:layer=none"),
    "llava-next": ("clse@ahead", "divprune", "visionzip", "hired"),
    "qwen2-vl": ("clse@ahead", "divprune", "evoprune", "visionzip"),
    "qwen3-vl": ("divprune", "evoprune", "pooling"),
}
#: Of the tiny models' heads, as vLLM's attention on CPUs takes them.
HEAD = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}


def save(kind: Kind, folder: Path) -> Path:
    """The model on disk, with heads of 32 channels."""
    rope = {"mrope_section": [6, 5, 5], "mrope_interleaved": kind is QWEN3_VL}
    with patch.dict(families.TEXT, HEAD), patch.dict(families.MROPE, rope):
        kind.save(folder)
    return folder


@pytest.mark.parametrize(
    "kind", [INTERNVL, LLAVA_NEXT, QWEN2_VL, QWEN3_VL], ids=lambda kind: kind.name
)
def test_the_tokens_and_answers_of_prune(kind: Kind, start: Start, tmp_path: Path) -> None:
    folder = save(kind, tmp_path / "model")
    model, processor = prunus.load(folder, dtype="float32")
    plain = {"enable_prefix_caching": False, "mm_processor_cache_gb": 0}
    llm = start(folder, METHODS[kind.name][0], KEEP, **plain)
    banned = model.generation_config.suppress_tokens
    positions = "compact" if kind in (INTERNVL, LLAVA_NEXT) else "original"
    for number, method in enumerate(METHODS[kind.name]):
        swap(model_of(llm), method, KEEP)
        asked = prompts(kind, number)
        for one, said in zip(asked, by_vllm(llm, asked, banned=banned), strict=True):
            wanted = by_prune(model, processor, one, method, KEEP, positions)
            assert said.kept == wanted.kept, (kind.name, method)
            assert said.answer == wanted.answer, (kind.name, method)


def prompts(kind: Kind, seed: int) -> list[Asked]:
    """Two images of other sizes, and one."""
    images: list[Any] = [picture(64, 40, 3 * seed), picture(32, 64, 3 * seed + 1)]
    last = picture(72, 48, 3 * seed + 2)
    mark = kind.image
    return [
        Asked(f"see {mark} and {mark} what?", images),
        Asked(f"now {mark} who is it?", [last]),
        Asked("no image at all?"),
    ]
