"""Sizes of vision towers that several families have, read from their configurations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunus.families.shapes import EncoderShape, WindowedShape


def vit_shape(vision: Any) -> EncoderShape:
    """A tower over images of one size (CLIP, SigLIP), which has fields of these."""
    kind = vision.model_type
    height, width = _pair(vision.image_size)
    patch_height, patch_width = _pair(vision.patch_size)
    return EncoderShape(
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        ffn=vision.intermediate_size,
        patches=(height // patch_height) * (width // patch_width),
        extra=1 if kind == "clip_vision_model" else 0,
        patch_inputs=vision.num_channels * patch_height * patch_width,
        pooling_head=kind == "siglip_vision_model" and getattr(vision, "vision_use_head", True),
    )


def mlp_macs(config: Any) -> int:
    """Multiply-accumulates for each row of a projector of two linear layers, which reads one block
    of the tower, or several side by side (``vision_feature_layer``)."""
    read = getattr(config, "vision_feature_layer", -1)
    inputs = config.vision_config.hidden_size * (len(read) if isinstance(read, Sequence) else 1)
    width = int(config.get_text_config().hidden_size)
    return width * (int(inputs) + width)


def frames_shape(vision: Any, width: int, ffn: int) -> WindowedShape:
    """A tower of ``width`` channels over images of any size, all of whose blocks see whole frames,
    with a plain feed-forward block of ``ffn`` channels (Qwen2-VL, Qwen3-VL)."""
    return WindowedShape(
        layers=vision.depth,
        width=width,
        ffn=ffn,
        patch_inputs=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        merge=vision.spatial_merge_size,
        window=1,
        full=frozenset(range(vision.depth)),
        ffn_matrices=2,
    )


def pixtral_shape(vision: Any, merge: int) -> WindowedShape:
    """A Pixtral tower whose visual tokens are squares of ``merge`` patches a side. Each image is
    counted by itself: pairs of patches of different images, which a mask hides where several share
    a call, are not."""
    return WindowedShape(
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        ffn=vision.intermediate_size,
        patch_inputs=vision.num_channels * vision.patch_size**2,
        merge=merge,
        window=1,
        full=frozenset(range(vision.num_hidden_layers)),
    )


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """``(height, width)`` of a size that configurations give as one number or two."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)
