"""The cost of a tower with windows: against torch's counter, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, Qwen2_5_VLConfig

import prunus
from prunus import CLSE
from prunus.cost import read_shape
from prunus.cost.flops import encoder_macs, prefill_flops, projector_macs
from prunus.grid import Grid
from tests.support.qwen import QwenPrompts, qwen


@pytest.mark.parametrize("kinds", [("image",), ("video",), ("video", "image")])
@pytest.mark.parametrize("count", [1, 2])
def test_counts_agree_with_torch(kinds: tuple[str, ...], count: int) -> None:
    model, prompts = qwen(), QwenPrompts(kinds)
    model.set_attn_implementation("eager")
    inputs = prompts.rows(count)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs, logits_to_keep=1)
    counted = counter.get_flop_counts()

    def flops(module: str) -> int:
        return sum(counted["Qwen2_5_VLForConditionalGeneration.model." + module].values())

    grids = [Grid(*size, (8, 8)) for size in prompts.grids(inputs)[0]]
    mine = prefill_flops(model.config, [inputs["input_ids"].shape[1]] * 5, grids)
    assert flops("visual") == mine["encoder"] + mine["projector"]
    assert flops("visual.merger") == mine["projector"]
    assert flops("language_model") == mine["llm"]


def test_a_report_counts_what_the_pruned_model_does() -> None:
    model, inputs = qwen(), QwenPrompts(("video", "image")).rows(2)
    model.set_attn_implementation("eager")
    cache = DynamicCache()
    with prunus.prune(model, CLSE(keep=5)) as run, torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(**inputs, logits_to_keep=1, past_key_values=cache)
    counted = counter.get_flop_counts()
    language = counted["Qwen2_5_VLForConditionalGeneration.model.language_model"]
    report = run.report()
    pruned = report["flops"]["pruned"]
    assert pruned["method"] > 0  # scores are computed while the language model runs
    assert pruned["llm"] + pruned["method"] == sum(language.values())
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert report["kv_bytes"]["pruned"] == held
    assert report["flops"]["dense"]["encoder"] == report["flops"]["pruned"]["encoder"]


def published(**text: Any) -> Qwen2_5_VLConfig:
    """The sizes of Qwen2.5-VL-7B."""
    sizes = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    }
    vision = {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "out_hidden_size": 3584}
    return Qwen2_5_VLConfig(text_config={**sizes, **text}, vision_config=vision)


def test_the_published_model_by_hand() -> None:
    """A picture of 448 x 392 pixels: 32 x 28 patches of 14, 16 x 14 visual tokens, windows of 4 x 4
    tokens (112 pixels), the last column of windows half as wide."""
    shape = read_shape(published())
    grid = Grid(1, 16, 14, (28, 28))
    patches = 32 * 28
    embedding = patches * (3 * 2 * 14 * 14) * 1280
    blocks = 32 * patches * (4 * 1280 * 1280 + 3 * 1280 * 3420)
    windows = 4 * 3 * 64**2 + 4 * 1 * 32**2  # 12 whole ones of 64 patches, 4 halves
    attention = 2 * 1280 * (28 * windows + 4 * patches**2)
    assert encoder_macs(shape.encoder, grid=grid) == embedding + blocks + attention
    assert projector_macs(shape.projector, grid=grid) == 224 * (5120 * 5120 + 5120 * 3584)
    assert shape.decoder.kv_heads * shape.decoder.head_dim == 512


def test_frames_do_not_meet_in_the_tower() -> None:
    shape = read_shape(published())
    one, four = (encoder_macs(shape.encoder, grid=Grid(t, 16, 14, (28, 28))) for t in (1, 4))
    assert four == 4 * one


def test_what_is_needed_is_asked_for() -> None:
    shape = read_shape(published())
    with pytest.raises(ValueError, match="give its grid"):
        prefill_flops(shape, [100] * 28, 1)
    with pytest.raises(ValueError, match="give its grid"):
        projector_macs(shape.projector)
