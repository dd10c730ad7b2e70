"""Analytic costs against what torch counts while a real model of transformers runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    SiglipVisionConfig,
)

from prunus.cost.flops import prefill_flops

TEXT = 7


def make_model(vision: PreTrainedConfig, strategy: str) -> LlavaForConditionalGeneration:
    text = LlamaConfig(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,  # not hidden_size / heads, on purpose
        vocab_size=40,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=39,
        vision_feature_select_strategy=strategy,
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("tower", ["clip", "siglip", "siglip-no-head"])
def test_counts_agree_with_torch(tower: str, images: int) -> None:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 48,
        "patch_size": 8,
    }
    vision: PreTrainedConfig
    if tower == "clip":
        vision, strategy = CLIPVisionConfig(**sizes), "default"
    else:
        vision = SiglipVisionConfig(**sizes, vision_use_head=tower == "siglip")
        strategy = "full"
    model = make_model(vision, strategy)

    visual = 36 * images
    ids = torch.cat([torch.full((1, visual), 39), torch.arange(TEXT)[None]], dim=1)
    pixels = torch.randn(images, 3, 48, 48)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, pixel_values=pixels, logits_to_keep=1)
    counted = counter.get_flop_counts()

    def flops(module: str) -> int:
        return sum(counted["LlavaForConditionalGeneration." + module].values())

    mine = prefill_flops(model.config, [visual + TEXT] * 3, images)
    assert flops("model.multi_modal_projector") == mine["projector"]
    # one head more of a percent is rotary frequencies, a product of position and frequency
    assert flops("model.language_model") == pytest.approx(mine["llm"], rel=2e-3)
    assert flops("model.vision_tower") == pytest.approx(mine["encoder"], rel=2e-3)
    head = 2 * 48 * 40
    assert counter.get_total_flops() == pytest.approx(mine["total"] + head, rel=2e-3)
