"""Decoder layers compiled one by one: the same tokens, and still pruned."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

import prunus
from prunus.bench.plan import compile_layers
from tests.support.llava import llava_clip
from tests.support.models import prompts_for


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    logging.getLogger("torch.__trace").setLevel(logging.ERROR)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_compiled_layers_give_the_same_tokens() -> None:
    model, inputs = llava_clip(4), prompts_for("llava-clip").rows(1)
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    method = prunus.CLSE(keep=5)

    def answers() -> list[torch.Tensor]:
        dense = model.generate(**inputs, **options)
        with prunus.prune(model, method) as run:
            pruned = model.generate(**inputs, **options)
        assert run.report()["tokens"]["kept"] == 5
        return [dense, pruned]

    with torch.no_grad():
        before = answers()
        compile_layers(model, backend="eager")
        for ours, theirs in zip(answers(), before, strict=True):
            assert torch.equal(ours, theirs)
