"""Real models' configurations, to be built with random weights: time does not depend on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    PretrainedConfig,
    Qwen2_5_VLConfig,
)

from prunus.errors import PrunusError

_VICUNA_ROWS = 32064  # rows of the published LLaVA-1.5 and LLaVA-NeXT checkpoints on transformers


@dataclass(frozen=True)
class Shape:
    """One model.

    Attributes:
        name: as on the command line.
        config: makes its configuration, with every width and depth times ``scale`` (0 to 1).
        size: height and width of the picture that is asked about, pixels.
    """

    name: str
    config: Callable[[float], PretrainedConfig]
    size: tuple[int, int]


def _scaled(value: int, scale: float, step: int) -> int:
    """``value * scale``, a positive multiple of ``step``."""
    return max(step, round(value * scale / step) * step)


def _clip_l(scale: float) -> CLIPVisionConfig:
    width = _scaled(1024, scale, 64)
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=_scaled(24, scale, 2),
        num_attention_heads=width // 64,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )


def _vicuna(scale: float, width: int, inner: int, layers: int) -> LlamaConfig:
    own = _scaled(width, scale, 128)
    return LlamaConfig(
        hidden_size=own,
        intermediate_size=_scaled(inner, scale, 128),
        num_hidden_layers=_scaled(layers, scale, 4),
        num_attention_heads=own // 128,
        num_key_value_heads=own // 128,
        vocab_size=_VICUNA_ROWS,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
    )


def _llava(scale: float, width: int, inner: int, layers: int) -> LlavaConfig:
    return LlavaConfig(
        vision_config=_clip_l(scale),
        text_config=_vicuna(scale, width, inner, layers),
        image_token_index=32000,
        image_seq_length=576,
    )


def _llava_next(scale: float) -> LlavaNextConfig:
    return LlavaNextConfig(
        vision_config=_clip_l(scale),
        text_config=_vicuna(scale, 4096, 11008, 32),
        image_token_index=32000,
        image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    )


def _qwen2_5(scale: float) -> Qwen2_5_VLConfig:
    tower, own = _scaled(1280, scale, 80), _scaled(3584, scale, 512)
    blocks = _scaled(32, scale, 4)
    return Qwen2_5_VLConfig(
        vision_config={
            "hidden_size": tower,
            "intermediate_size": _scaled(3420, scale, 4),
            "depth": blocks,
            "num_heads": tower // 80,
            "out_hidden_size": own,
            "fullatt_block_indexes": [block for block in range(blocks) if block % 8 == 7]
            or [blocks - 1],
        },
        text_config={
            "hidden_size": own,
            "intermediate_size": _scaled(18944, scale, 128),
            "num_hidden_layers": _scaled(28, scale, 4),
            "num_attention_heads": own // 128,
            "num_key_value_heads": max(1, own // 896),
            "vocab_size": 152064,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
        },
        image_token_id=151655,
        video_token_id=151656,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
    )


SHAPES = {
    one.name: one
    for one in (
        Shape("llava-1.5-7b", lambda s: _llava(s, 4096, 11008, 32), (336, 336)),
        Shape("llava-1.5-13b", lambda s: _llava(s, 5120, 13824, 40), (336, 336)),
        Shape("llava-next-7b", _llava_next, (672, 672)),
        Shape("qwen2.5-vl-7b", _qwen2_5, (728, 728)),
    )
}


def shape_of(name: str) -> Shape:
    """The shape of that name.

    Raises:
        PrunusError: an unknown name.
    """
    if name not in SHAPES:
        raise PrunusError(f"unknown shape {name!r}: choose from {', '.join(SHAPES)}")
    return SHAPES[name]
