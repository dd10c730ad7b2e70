"""Every language model that is proved right: what it costs is what torch counts, and what its cache
holds, or it is said that it is not counted."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prunus.cost import kv_bytes
from prunus.cost.flops import decoder_macs
from prunus.errors import PrunusError
from prunus.families import family_of
from tests.support.decoder_list import DECODERS
from tests.support.decoders import Decoder, build
from tests.support.family_checks import held_bytes

TOKENS = 70
NOT_COUNTED = {
    "afmoe",
    "codegen",
    "diffllama",
    "doge",
    "ernie4_5_moe",
    "gemma4_text",
    "gemma4_unified_text",
    "gptj",
    "kolibri1",
    "mimo_v2_flash",
}


@pytest.mark.parametrize(
    "decoder", [one for one in DECODERS if one.known], ids=lambda one: one.name
)
def test_a_decoder_is_counted_right_or_not_at_all(decoder: Decoder) -> None:
    model = build(decoder)
    model.set_experts_implementation("eager")  # products that torch's counter knows
    family = family_of(model)
    embeds = torch.randn(1, TOKENS, family.text_width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        cache = family.language_model(inputs_embeds=embeds, use_cache=True).past_key_values
    lengths = [0 if layer.keys is None else layer.keys.shape[2] for layer in cache.layers]
    depth = len(family.layers)
    lengths += [0] * (depth - len(lengths))
    try:
        found = kv_bytes(family.cache_shape(model.config), lengths, 4)
    except PrunusError:
        assert decoder.model_type == "mimo_v2_flash"
    else:
        assert found == held_bytes(cache)
    if decoder.model_type in NOT_COUNTED:
        with pytest.raises(PrunusError, match=f"cost of a '{decoder.model_type}' decoder"):
            family.decoder_shape(model.config)
    else:
        macs = decoder_macs(family.decoder_shape(model.config), [TOKENS] * depth)
        assert 2 * macs == pytest.approx(counter.get_total_flops(), rel=0.02)
