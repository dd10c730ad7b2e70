"""The report of a run from a record written by hand."""

from types import SimpleNamespace

import pytest
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from prunus.cost.flops import prefill_flops
from prunus.cost.report import build_report
from prunus.families.llava import Llava
from prunus.grid import Grid
from prunus.results.record import Record


def config() -> LlavaConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=48,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=50,
        ),
        image_token_index=49,
    )


FAMILY = SimpleNamespace(
    cost_note=lambda config: "",
    config=config(),
    tower_grids=lambda grid: grid.parts,
    tower_shapes=Llava.tower_shapes,
    decoder_shape=Llava.decoder_shape,
    cache_shape=Llava.cache_shape,
)
GRID = Grid(1, 6, 6, (8, 8))


def record() -> Record:
    return Record(
        samples=2,
        original=[36, 72],
        text=[10, 20],
        images=[[GRID], [GRID, GRID]],
        per_layer=[[36, 72], [12, 24], [12, 24], [4, 8]],
        resident=[[4, 8], [4, 8], [12, 24], [4, 8]],
        cached=[[14, 28], [14, 28], [22, 44], [14, 28]],
        cached_dense=[[46, 92]] * 4,
        nominal=[12.0, 24.0],
        method_macs=500.0,
        element_size=2,
    )


def test_tokens_are_means_over_samples_and_layers() -> None:
    tokens = build_report(record(), FAMILY, "clse")["tokens"]
    assert tokens["original"] == 54
    assert tokens["nominal"] == 18
    assert tokens["kept"] == 6
    assert tokens["per_layer"] == [54, 18, 18, 6]
    assert tokens["average"] == 24
    assert tokens["resident"] == (6 + 6 + 18 + 6) / 4


def test_flops_and_bytes_are_means_over_samples() -> None:
    report = build_report(record(), FAMILY, "clse")
    a = prefill_flops(config(), [46, 22, 22, 14], 1, method_macs=250)
    b = prefill_flops(config(), [92, 44, 44, 28], 2, method_macs=250)
    assert report["flops"]["pruned"]["total"] == (a["total"] + b["total"]) / 2
    assert report["flops"]["pruned"]["method"] == 500
    assert report["flops"]["dense"]["method"] == 0
    assert report["flops"]["dense"]["encoder"] == report["flops"]["pruned"]["encoder"]
    dense = prefill_flops(config(), [46] * 4)["llm"] + prefill_flops(config(), [92] * 4, 2)["llm"]
    assert report["flops"]["llm_ratio"] == pytest.approx((a["llm"] + b["llm"]) / dense)
    per_token = 2 * 2 * 8 * 2  # keys and values, kv heads, head_dim, bytes
    first = (10 * 4 + 4 + 4 + 12 + 4) * per_token
    second = (20 * 4 + 8 + 8 + 24 + 8) * per_token
    assert report["kv_bytes"]["pruned"] == (first + second) / 2
    assert report["kv_bytes"]["dense"] == (46 * 4 + 92 * 4) / 2 * per_token


def test_readable_and_plain() -> None:
    report = build_report(record(), FAMILY, "clse")
    assert report["pruned"] is True and report["method"] == "clse" and report["samples"] == 2
    text = str(report)
    assert "54 -> 6" in text and "asked for 18" in text and "24.0 per layer" in text
    report["tokens"]["nominal"] = 201 + 1 / 6
    assert "(asked for 201.2)" in str(report)


def test_nothing_pruned_is_said() -> None:
    dense = record()
    dense.per_layer = [[36, 72]] * 4
    dense.resident, dense.cached = [[36, 72]] * 4, dense.cached_dense
    dense.method_macs = 0.0
    dense.nominal = None
    report = build_report(dense, FAMILY, "clse")
    assert report["pruned"] is False
    assert report["flops"]["ratio"] == 1 and report["kv_bytes"]["ratio"] == 1
    assert "nothing pruned" in str(report) and "its own count" in str(report)


def test_an_empty_or_foreign_record_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to report"):
        build_report(Record(), FAMILY, "clse")
    short = record()
    short.per_layer = short.per_layer[:3]
    with pytest.raises(ValueError, match="3 layers"):
        build_report(short, FAMILY, "clse")
