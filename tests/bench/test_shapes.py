"""Shapes: their prompts are what the real processors make of their pictures."""

from __future__ import annotations

import pytest
import torch

from prunus.bench.build import build, prompt
from prunus.bench.decoding import decoder
from prunus.bench.shapes import SHAPES
from prunus.bench.workload import weight_bytes
from prunus.inference.answer import dense_report

#: Visual tokens of a prompt, and weights in billions, of the published models.
KNOWN = {
    "llava-1.5-7b": (576, 7.1),
    "llava-1.5-13b": (576, 13.4),
    "llava-next-7b": (2880, 7.1),
    "qwen2.5-vl-7b": (676, 8.3),
    "qwen3-vl-8b": (576, 8.8),
    "internvl3-8b": (1280, 7.9),
    "video-llava-7b": (512, 7.4),
    "llava-onevision-7b": (392, 8.0),
}
SMALL = ("llava-1.5-7b", "llava-next-7b", "video-llava-7b")


@pytest.mark.parametrize(
    "name",
    [one if one in SMALL else pytest.param(one, marks=pytest.mark.full) for one in SHAPES],
)
def test_a_prompt_is_what_the_processor_makes(name: str) -> None:
    shape, cpu = SHAPES[name], torch.device("cpu")
    frames = 2 if shape.frames else 0
    model = build(shape, scale=0.01, dtype=torch.float32, device=cpu, attention="sdpa")
    inputs = prompt(model, shape, batch=1, words=10, frames=frames or None)
    decode = decoder(model, shape, frames)
    assert decode is not None
    made = decode()
    for key in ("pixel_values", "pixel_values_videos", "image_grid_thw"):
        assert (key in inputs) == (key in made)
        if key in inputs:
            assert inputs[key].shape == torch.as_tensor(made[key]).shape, key
    if "image_grid_thw" in inputs:
        assert torch.equal(inputs["image_grid_thw"], made["image_grid_thw"])
    report = dense_report(model, inputs)
    assert report["tokens"]["original"] == KNOWN[name][0]
    assert report["flops"] is not None
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=2)
    assert out.shape[1] == inputs["input_ids"].shape[1] + 2


@pytest.mark.parametrize("name", SHAPES)
def test_whole_shapes_have_the_weights_of_the_published_models(name: str) -> None:
    assert weight_bytes(name, 1.0, torch.bfloat16) / 2e9 == pytest.approx(KNOWN[name][1], rel=0.02)
