"""Qwen3.5: as Qwen3-VL without DeepStack, and with linear attention in most decoder layers."""

from __future__ import annotations

from typing import Any

from prunus.families.decoder_shapes import read_experts
from prunus.families.qwen2_vl import Qwen2VL, merger_shape
from prunus.families.shapes import (
    CacheShape,
    DecoderShape,
    MixerShape,
    ProjectorShape,
    TowerShape,
    plain_mixer,
)
from prunus.families.towers.shapes import frames_shape

_CHUNK = 64  # tokens that linear attention takes at a time


class Qwen35(Qwen2VL):
    """``Qwen3_5ForConditionalGeneration`` and the mixture of experts of the same name.

    A video is one run of placeholders per time step, with timestamps as text between. The tower is
    built as that of Qwen2-VL, with a learned position embedding in front of its blocks.
    """

    name = "qwen3.5"
    model_types = ("qwen3_5", "qwen3_5_moe")
    summary = "Qwen3.5: images and videos of any size, timestamps, linear attention, M-RoPE"

    @classmethod
    def tower_shapes(cls, config: Any) -> tuple[TowerShape, ProjectorShape]:
        vision = config.vision_config
        tower = frames_shape(vision, vision.hidden_size, vision.intermediate_size)
        return tower, merger_shape(vision, vision.hidden_size, vision.out_hidden_size)

    @classmethod
    def decoder_shape(cls, config: Any) -> DecoderShape:
        text = config.get_text_config()
        depth, heads, dim = text.num_hidden_layers, text.num_attention_heads, text.head_dim
        plain = plain_mixer(text.hidden_size, heads, text.num_key_value_heads, dim)
        gate = text.hidden_size * heads * dim  # of what attention gives, made with the queries
        full = MixerShape(plain.token + gate, plain.pair)
        ffn, routers = read_experts(text, depth)
        return DecoderShape(
            layers=depth,
            width=text.hidden_size,
            heads=heads,
            kv_heads=text.num_key_value_heads,
            head_dim=dim,
            ffn=ffn,
            routers=routers,
            mixers=tuple(_linear(text) if one else full for one in _has_state(text)),
        )

    @classmethod
    def cache_shape(cls, config: Any) -> CacheShape:
        """The last tokens in front of a convolution are as precise as keys are; the state of linear
        attention is in float32."""
        text = config.get_text_config()
        keys, values = _channels(text)
        state = keys * text.linear_num_value_heads // text.linear_num_key_heads
        last = (2 * keys + values) * text.linear_conv_kernel_dim
        kinds = _has_state(text)
        held = 2 * text.num_key_value_heads * text.head_dim
        return CacheShape(
            held=tuple(0 if one else held for one in kinds),
            states=tuple(last if one else 0 for one in kinds),
            floats=tuple(state * text.linear_value_head_dim if one else 0 for one in kinds),
        )


def _has_state(text: Any) -> list[bool]:
    """For each layer, whether it has linear attention."""
    return [kind == "linear_attention" for kind in text.layer_types[: text.num_hidden_layers]]


def _channels(text: Any) -> tuple[int, int]:
    """Channels of all keys, and of all values, of a layer with linear attention."""
    keys = text.linear_num_key_heads * text.linear_key_head_dim
    return keys, text.linear_num_value_heads * text.linear_value_head_dim


def _linear(text: Any) -> MixerShape:
    """Gated delta rule: queries and keys, values, their gate and two numbers for each head; a
    convolution of the first three. Of a chunk, keys and queries by keys, what these weigh of the
    values, and the state read twice and written once."""
    keys, values = _channels(text)
    heads = text.linear_num_value_heads
    wide, high = text.linear_key_head_dim, text.linear_value_head_dim
    mixed = 2 * keys + values
    token = (
        text.hidden_size * (mixed + 2 * values + 2 * heads) + mixed * text.linear_conv_kernel_dim
    )
    whole = heads * (_CHUNK**2 * (2 * wide + high) + 3 * _CHUNK * wide * high)
    return MixerShape(token, chunk=_CHUNK, whole=whole)
