"""Decoder classes of transformers, tiny and random, each as the language model of a LLaVA.

What a decoder is here for (a window, sinks, layers without rotary embedding) is set so that it
matters: windows are shorter than the image, position-dependent scales begin within the prompt, and
norms, biases and sinks are random instead of ones and zeros.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import (
    CONFIG_MAPPING,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
)

from tests.support.llava import IMAGE, PAD, PATCH, SIDE, TOKENS

DEPTH = 4
WINDOW = 8

_COMMON = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "vocab_size": 128,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 127,
    "initializer_range": 0.15,
    "sliding_window": WINDOW,
    "attention_chunk_size": WINDOW,
    "query_pre_attn_scalar": 16,
    # Mixtures of experts
    "intermediate_size_mlp": 96,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    # Low-rank (MLA) attention
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    # Linear attention
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


@dataclass(frozen=True, eq=False)
class Decoder:
    """One kind of decoder.

    Attributes:
        model_type: ``config.model_type`` of its text configuration.
        trait: what its attention does beside grouped queries with rotary embedding and a causal
            mask, in a few words.
        options: its configuration, beside what all tiny decoders share.
        backends: attention implementations that the unmodified model has.
        calls: how often a layer calls its attention function.
        since: the transformers version from which on its class is as described here.
        name: test id; the model type unless there are several of one.
    """

    model_type: str
    trait: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    backends: tuple[str, ...] = ("eager", "sdpa")
    calls: int = 1
    since: str = "5.19"
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.model_type)

    @property
    def known(self) -> bool:
        """Whether the installed transformers has it."""
        here = Version(transformers.__version__) >= Version(self.since)
        return here and self.model_type in CONFIG_MAPPING


def language_config(decoder: Decoder) -> PreTrainedConfig:
    """Its text configuration."""
    cls = CONFIG_MAPPING[decoder.model_type]
    accepted = set(inspect.signature(cls.__init__).parameters) | set(cls.attribute_map or {})
    for base in cls.__mro__:
        accepted |= set(getattr(base, "__annotations__", {}))
    options = {name: value for name, value in _COMMON.items() if name in accepted}
    return cls(**{**options, **decoder.options})


def build(decoder: Decoder, backend: str = "eager") -> Any:
    """A LLaVA with this decoder, in eval mode, float32.

    Raises:
        Exception: whatever transformers raises where it has no such model.
    """
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
            projection_dim=32,
        ),
        text_config=language_config(decoder),
        image_token_id=IMAGE,
        image_seq_length=TOKENS,
    )
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation=backend).eval()
    _roughen(model.model.language_model)
    _sharpen(model.model)
    model.generation_config.pad_token_id = PAD
    model.generation_config.suppress_tokens = [IMAGE]  # an answer must not hold placeholders
    return model


def layers_of(model: Any) -> torch.nn.ModuleList:
    """The decoder layers of a LLaVA."""
    language_model = model.model.language_model
    layers: torch.nn.ModuleList = getattr(language_model, "layers", None) or language_model.h
    return layers


def _roughen(language_model: torch.nn.Module) -> None:
    """Norms, biases and sinks away from ones and zeros, so that leaving one out shows."""
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in language_model.named_parameters():
            if weight.ndim == 1:
                spread = 0.5 if "sink" in name else 0.2
                weight.add_(spread * torch.randn(weight.shape, generator=source))


def _sharpen(core: Any) -> None:
    """Visual tokens of one image that differ from each other as much as words do."""
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        table = core.vision_tower.embeddings.position_embedding.weight
        table.copy_(torch.randn(table.shape, generator=source))
        for weight in core.multi_modal_projector.parameters():
            weight.copy_(0.4 * torch.randn(weight.shape, generator=source))
