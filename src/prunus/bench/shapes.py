"""Real models' configurations, to be built with random weights: time does not depend on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    PretrainedConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    VideoLlavaConfig,
)

from prunus.errors import unknown

_VICUNA_ROWS = 32064  # rows of the published LLaVA-1.5 and LLaVA-NeXT checkpoints on transformers


@dataclass(frozen=True)
class Shape:
    """One model.

    Attributes:
        name: as on the command line.
        config: makes its configuration, with every width and depth times ``scale`` (0 to 1).
        size: height and width of the picture that is asked about, or of a frame, pixels.
        frames: of a video that is asked about; 0: a picture is.
    """

    name: str
    config: Callable[[float], PretrainedConfig]
    size: tuple[int, int]
    frames: int = 0


def _scaled(value: int, scale: float, step: int) -> int:
    """``value * scale``, a positive multiple of ``step``."""
    return max(step, round(value * scale / step) * step)


def _clip_l(scale: float, size: int = 336) -> CLIPVisionConfig:
    width = _scaled(1024, scale, 64)
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=_scaled(24, scale, 2),
        num_attention_heads=width // 64,
        image_size=size,
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


def _qwen2(scale: float, vocabulary: int) -> dict[str, object]:
    """The language model of Qwen2-7B and Qwen2.5-7B."""
    own = _scaled(3584, scale, 512)
    return {
        "model_type": "qwen2",
        "hidden_size": own,
        "intermediate_size": _scaled(18944, scale, 128),
        "num_hidden_layers": _scaled(28, scale, 4),
        "num_attention_heads": own // 128,
        "num_key_value_heads": max(1, own // 896),
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }


def _qwen3(scale: float) -> Qwen3VLConfig:
    tower, own = _scaled(1152, scale, 72), _scaled(4096, scale, 512)
    blocks = _scaled(27, scale, 3)
    return Qwen3VLConfig(
        vision_config={
            "hidden_size": tower,
            "intermediate_size": _scaled(4304, scale, 4),
            "depth": blocks,
            "num_heads": tower // 72,
            "out_hidden_size": own,
            "num_position_embeddings": 2304,
            # behind 8, 16 and 24 of 27 blocks
            "deepstack_visual_indexes": [max(0, blocks * n // 27) for n in (8, 16, 24)],
        },
        text_config={
            "hidden_size": own,
            "intermediate_size": _scaled(12288, scale, 128),
            "num_hidden_layers": _scaled(36, scale, 4),
            "num_attention_heads": own // 128,
            "num_key_value_heads": own // 512,
            "head_dim": 128,
            "vocab_size": 151936,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        image_token_id=151655,
        video_token_id=151656,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
    )


def _internvl3(scale: float) -> InternVLConfig:
    tower = _scaled(1024, scale, 64)
    return InternVLConfig(
        vision_config={
            "hidden_size": tower,
            "intermediate_size": 4 * tower,
            "num_hidden_layers": _scaled(24, scale, 2),
            "num_attention_heads": tower // 64,
            "image_size": [448, 448],
            "patch_size": [14, 14],
        },
        text_config=_qwen2(scale, 151674),
        image_token_id=151667,
        image_seq_length=256,
        tie_word_embeddings=False,
    )


def _video_llava(scale: float) -> VideoLlavaConfig:
    return VideoLlavaConfig(
        vision_config=_clip_l(scale, 224),
        text_config=_vicuna(scale, 4096, 11008, 32),
        image_token_index=32000,
        video_token_index=32001,
        image_seq_length=256,
        video_seq_length=2056,
    )


def _onevision(scale: float) -> LlavaOnevisionConfig:
    tower = _scaled(1152, scale, 72)
    return LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": tower,
            "intermediate_size": _scaled(4304, scale, 4),
            "num_hidden_layers": _scaled(26, scale, 2),
            "num_attention_heads": tower // 72,
            "image_size": 384,
            "patch_size": 14,
            "vision_use_head": False,
        },
        text_config=_qwen2(scale, 152000),
        image_token_index=151646,
        video_token_index=151647,
    )


SHAPES = {
    one.name: one
    for one in (
        Shape("llava-1.5-7b", lambda s: _llava(s, 4096, 11008, 32), (336, 336)),
        Shape("llava-1.5-13b", lambda s: _llava(s, 5120, 13824, 40), (336, 336)),
        Shape("llava-next-7b", _llava_next, (672, 672)),
        Shape("qwen2.5-vl-7b", _qwen2_5, (728, 728)),
        Shape("qwen3-vl-8b", _qwen3, (768, 768)),
        Shape("internvl3-8b", _internvl3, (896, 896)),
        Shape("video-llava-7b", _video_llava, (224, 224), 8),
        Shape("llava-onevision-7b", _onevision, (384, 384), 32),
    )
}


def shape_of(name: str) -> Shape:
    """The shape of that name.

    Raises:
        PrunusError: an unknown name.
    """
    if name not in SHAPES:
        raise unknown("shape", name, list(SHAPES))
    return SHAPES[name]
