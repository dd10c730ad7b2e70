"""Analytic costs against numbers published for LLaVA-1.5-7B with 50 text tokens."""

import pytest
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from prunus.cost import read_shape
from prunus.cost.flops import decoder_macs, encoder_macs, prefill_flops
from prunus.cost.kv import kv_bytes

TEXT = 50
MIB = 2**20


def llava_7b() -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    text = LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32064,
    )
    return LlavaConfig(vision_config=vision, text_config=text)


def test_dense_language_model_is_4_16_tera_macs() -> None:
    shape = read_shape(llava_7b()).decoder
    assert decoder_macs(shape, [TEXT + 576] * 32) / 1e12 == pytest.approx(4.16, abs=0.005)


@pytest.mark.parametrize(("keep", "percent"), [(192, 38), (128, 28), (64, 18)])
def test_ratio_of_a_budget(keep: int, percent: int) -> None:
    config = llava_7b()
    dense = prefill_flops(config, [TEXT + 576] * 32)["llm"]
    pruned = prefill_flops(config, [TEXT + keep] * 32)["llm"]
    assert round(100 * pruned / dense) == percent


@pytest.mark.parametrize("keep", [192, 128, 64])
def test_two_dense_layers_with_the_same_average_cost_about_the_same(keep: int) -> None:
    config = llava_7b()
    dense = prefill_flops(config, [TEXT + 576] * 32)["llm"]
    rest = (32 * keep - 2 * 576) / 30
    fastv = prefill_flops(config, [TEXT + 576] * 2 + [round(TEXT + rest)] * 30)["llm"]
    even = prefill_flops(config, [TEXT + keep] * 32)["llm"]
    assert 0 < 100 * abs(fastv - even) / dense < 0.3


def test_key_value_cache_of_626_tokens_is_313_mib() -> None:
    shape = read_shape(llava_7b()).decoder
    assert kv_bytes(shape, [626] * 32, 2) == 313 * MIB
    assert kv_bytes(shape, [TEXT + 62] * 32, 2) == 56 * MIB


def test_grouped_query_attention_needs_less_cache_and_smaller_projections() -> None:
    config = llava_7b()
    config.text_config.num_key_value_heads = 8
    shape = read_shape(config).decoder
    assert kv_bytes(shape, [626] * 32, 2) == 313 * MIB // 4
    full = read_shape(llava_7b()).decoder
    saved = decoder_macs(full, [10] * 32) - decoder_macs(shape, [10] * 32)
    assert saved == 32 * 2 * 10 * 4096 * (4096 - 1024)


def test_heads_need_not_divide_the_width() -> None:
    config = llava_7b()
    config.text_config.head_dim = 64
    shape = read_shape(config).decoder
    assert kv_bytes(shape, [626] * 32, 2) == 313 * MIB // 2
    saved = decoder_macs(read_shape(llava_7b()).decoder, [10] * 32) - decoder_macs(shape, [10] * 32)
    assert saved == 32 * (4 * 10 * 4096 * 2048 + 2 * 100 * 2048)


def test_components_add_up_and_each_image_costs_one_tower_pass() -> None:
    one = prefill_flops(llava_7b(), [626] * 32, 1, method_macs=1e9)
    two = prefill_flops(llava_7b(), [626] * 32, 2, method_macs=1e9)
    assert one["total"] == sum(v for k, v in one.items() if k != "total")
    assert one["method"] == 2e9
    assert two["encoder"] == 2 * one["encoder"]
    assert two["projector"] == 2 * one["projector"]
    assert one["projector"] == 2 * 576 * (1024 * 4096 + 4096 * 4096)
    # the 24 executed blocks of CLIP ViT-L/14 at 336 px: about 0.19 TMAC
    assert encoder_macs(read_shape(llava_7b()).encoder) / 1e12 == pytest.approx(0.19, abs=0.01)


def test_wrong_number_of_layers_and_unknown_architectures_are_refused() -> None:
    config = llava_7b()
    with pytest.raises(ValueError, match="32 decoder layers"):
        prefill_flops(config, [626] * 31)
    with pytest.raises(ValueError, match="merges of 2 images given for 1"):
        prefill_flops(config, [626] * 32, merges=[[], []])
    with pytest.raises(ValueError, match="32 decoder layers"):
        kv_bytes(read_shape(config).decoder, [626], 2)
    with pytest.raises(ValueError, match="cost of a 'llama' model: known are .*llava"):
        read_shape(config.text_config)
