"""The oracle once more, on the trained built-in model with its 576 tokens and real processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE
from prunus.tasks.scenes import make_scene, render
from tests.support.oracles.masked import continued, masked_logits, visibility

STEPS = 32


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return prunus.load("tiny-llava")


@pytest.mark.parametrize("variant", ["paper", "hybrid", "released"])
def test_padded_batch_with_two_images_in_one_row(loaded: tuple[Any, Any], variant: Any) -> None:
    model, processor = loaded
    images = [render(make_scene(seed, "test")) for seed in (1, 2, 3)]
    text = [
        "USER: <image>\n<image>\nHow many circles are there? ASSISTANT:",
        "USER: <image>\nIs there a red square? ASSISTANT:",
    ]
    inputs = dict(processor(images=images, text=text, return_tensors="pt", padding=True))
    assert int((inputs["attention_mask"] == 0).sum()) > 500
    with prunus.prune(model, CLSE(keep=64, variant=variant)) as run:
        out = model.generate(
            **inputs,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            suppress_tokens=[model.config.image_token_id],
            output_logits=True,
            return_dict_in_generate=True,
        )
    spots = []
    for row in inputs["input_ids"]:
        places = (row == model.config.image_token_id).nonzero().flatten().tolist()
        spots.append([places[start : start + 576] for start in range(0, len(places), 576)])
    assert [len(images) for images in spots] == [2, 1]
    full = continued(inputs, out.sequences)
    length = inputs["input_ids"].shape[1]
    depth = len(model.model.language_model.layers)
    visible = visibility(run.trace, spots, full["attention_mask"], depth, length)
    expected = masked_logits(model, full, visible)[:, length - 1 : -1]
    assert (torch.stack(out.logits, dim=1) - expected).abs().max() < 1e-4
