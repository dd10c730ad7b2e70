"""Cost columns of CLSE (Table 5) and StepPrune (Table 3) from configurations alone: each agrees, or
is said here to be another setting's.

Stated nowhere: text tokens. The caches of CLSE's dense models imply 50 (image) and 58 (video), its
FLOPs 88 or 89 and 97; StepPrune's dense model implies 62 or 63. Those of VisiPruner are in
``test_visipruner_published.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from prunus.compare.published import published_tables
from prunus.cost import prefill_flops
from prunus.cost.kv import kv_bytes
from prunus.cost.published import plain_flops
from prunus.families.shapes import DecoderShape
from prunus.reproduce.formula import counts
from prunus.reproduce.recipe import Arm
from tests.cost.test_published import llava_7b

VICUNA = DecoderShape(layers=32, width=4096, heads=32, kv_heads=32, head_dim=128, ffn=11008)
IMAGE, VIDEO = 576, 2048
TABLES = {table["id"]: table for table in published_tables()}


def printed(table: str, method: str, column: str) -> float:
    [row] = [row for row in TABLES[table]["rows"] if row["method"] == method]
    value = row["values"][column]
    assert value is not None
    return value


def asked(method: str, keep: str | None) -> Arm:
    return Arm("", 0.0, method, keep)


def runs(method: str, keep: str | None, tokens: int) -> tuple[Sequence[int], Sequence[int]]:
    from prunus.inference.named import build_methods

    found = counts(build_methods(method, keep, []) or (), asked(method, keep), 32, tokens)
    return found.run, found.cached


def share(run: Sequence[float], original: int, text: int) -> float:
    dense = plain_flops(VICUNA, [original + text] * 32)
    return 100 * plain_flops(VICUNA, [n + text for n in run]) / dense


def megabytes(cached: Sequence[int], text: int) -> float:
    return kv_bytes(VICUNA, [n + text for n in cached], 2) / 2**20


def test_plain_flops_by_hand() -> None:
    small = DecoderShape(layers=2, width=10, heads=2, kv_heads=2, head_dim=5, ffn=30)
    one = 4 * 7 * 100 + 2 * 49 * 10 + 2 * 7 * 10 * 30
    two = 4 * 3 * 100 + 2 * 9 * 10 + 2 * 3 * 10 * 30
    assert plain_flops(small, [7, 3]) == one + two
    with pytest.raises(ValueError, match="3 counts given for 2"):
        plain_flops(small, [1, 1, 1])


def test_dense_caches_are_those_of_50_and_58_text_tokens() -> None:
    assert megabytes([IMAGE] * 32, 50) == TABLES["clse-5-image"]["dense"]["KV MB"] == 313.0
    assert megabytes([VIDEO] * 32, 58) == TABLES["clse-5-video"]["dense"]["KV MB"] == 1053


def test_clse_is_the_released_schedule() -> None:
    run, cached = runs("clse@released", "192", IMAGE)
    assert list(run) == [576] + [330] * 10 + [210] * 10 + [62] * 11
    # its cache is that of the last stage in all layers
    assert megabytes(cached, 50) == printed("clse-5-image", "CLSE", "KV MB") == 56.0
    found = [text for text in range(40, 120) if round(share(run, IMAGE, text), 1) == 43.9]
    assert found == [88] and printed("clse-5-image", "CLSE", "FLOPs %") == 43.9
    # The paper's own text, one stage, fits neither.
    run, cached = runs("clse", "192", IMAGE)
    assert round(share(run, IMAGE, 88), 1) == 43.2 and megabytes(cached, 50) == 127.0


def test_fastv_has_three_whole_layers() -> None:
    run, cached = runs("fastv:layer=3", "192", IMAGE)
    assert list(run) == [576] * 3 + [192] * 29
    fitting = [text for text in range(40, 120) if round(share(run, IMAGE, text), 1) == 46.9]
    assert fitting == [88, 89] and printed("clse-5-image", "FastV", "FLOPs %") == 46.9
    # Two whole layers, as in FastV's own scripts, would be 45.0 to 45.1.
    assert round(share(runs("fastv", "192", IMAGE)[0], IMAGE, 89), 1) == 45.1
    # Its cache was counted without the whole layers in the image table, and with them in the other.
    assert megabytes([192] * 32, 50) == printed("clse-5-image", "FastV", "KV MB") == 121.0
    assert megabytes(cached, 50) == pytest.approx(139.0, abs=0.01)
    run, cached = runs("fastv:layer=3", "194", VIDEO)
    assert round(megabytes(cached, 58), 1) == printed("clse-5-video", "FastV", "KV MB") == 212.9
    fitting = [text for text in range(40, 140) if round(share(run, VIDEO, text), 1) == 20.6]
    assert 97 in fitting and printed("clse-5-video", "FastV", "FLOPs %") == 20.6
    assert round(share(run, VIDEO, 58), 1) == 19.3


def test_sparsevlm_has_the_cache_of_its_schedule_but_not_its_flops() -> None:
    run, cached = runs("sparsevlm", "192", IMAGE)
    assert sum(run) / 32 == 206.5  # "192" does not count what is recycled, nor whole layers
    assert megabytes(cached, 50) == pytest.approx(128.25)
    assert printed("clse-5-image", "SparseVLM", "KV MB") == 128.2
    # Printed 49.7: more than these tokens cost; how the rest was counted is not said.
    assert round(share(run, IMAGE, 88), 1) == 43.7
    assert printed("clse-5-image", "SparseVLM", "FLOPs %") == 49.7


def test_no_schedule_of_pyramiddrop_is_known_for_its_figures() -> None:
    visual = 2 * printed("clse-5-image", "PDrop", "KV MB") - 50
    assert round(visual, 1) == 372.4  # of 192 on average that the row is said to have
    assert printed("clse-5-image", "PDrop", "FLOPs %") == 74.0
    run, _ = runs("pyramiddrop", None, IMAGE)  # 8, 16, 24 of 32, halved at each: 270
    assert sum(run) / 32 == 270
    assert round(share(run, IMAGE, 88), 1) == 53.4


def test_clse_m_has_one_whole_layer_and_124_tokens() -> None:
    run = [VIDEO] + [124] * 31
    assert round(share(run, VIDEO, 58), 1) == printed("clse-5-video", "CLSE-M", "FLOPs %") == 10.7
    assert round(megabytes(run, 58), 1) == printed("clse-5-video", "CLSE-M", "KV MB") == 121.1
    assert round(share([VIDEO] + [194] * 31, VIDEO, 58), 1) == 13.7  # what the row says


def total(run: Sequence[int], text: int) -> float:
    """TFLOPs of tower, projector and language model."""
    return prefill_flops(llava_7b(), [n + text for n in run])["total"] / 1e12


def test_the_dense_model_of_stepprune_has_62_or_63_text_tokens() -> None:
    dense = TABLES["stepwise-3"]["dense"]["TFLOPs"]
    assert dense == 8.89
    assert total([IMAGE] * 32, 62) < dense < total([IMAGE] * 32, 63)
    for text in (50, 62, 63, 74):
        assert total([IMAGE] * 32, text) == pytest.approx(dense, rel=0.02)


def test_pruned_flops_of_stepprune() -> None:
    # 64 tokens are 2.05: DiffPrune, its predecessor, prints 2.13, StepPrune 2.28, with selectors.
    assert total([64] * 32, 62) == pytest.approx(2.05, abs=0.005)
    assert printed("stepwise-3", "StepPrune", "TFLOPs") == 2.28
    # FastV: 2.39 printed, between one whole layer (2.26) and two (2.48).
    run, _ = runs("fastv", "64", IMAGE)
    assert total(run, 62) == pytest.approx(2.475, abs=0.005)
    assert total([IMAGE] + [64] * 31, 62) == pytest.approx(2.26, abs=0.01)
    assert 2.26 < printed("stepwise-3", "FastV", "TFLOPs") < 2.475
    # PDrop "at 64 tokens" is its default schedule, of 270 on average.
    run, _ = runs("pyramiddrop", None, IMAGE)
    assert total(run, 62) == pytest.approx(printed("stepwise-3", "PDrop", "TFLOPs"), rel=0.022)
    assert total([64] * 32, 62) < 0.5 * printed("stepwise-3", "PDrop", "TFLOPs")
