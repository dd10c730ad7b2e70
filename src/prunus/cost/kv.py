"""Bytes of the key/value cache."""

from __future__ import annotations

from collections.abc import Sequence

from prunus.errors import PrunusError
from prunus.families.shapes import CacheShape, DecoderShape


def kv_bytes(shape: DecoderShape | CacheShape, lengths: Sequence[int], element_size: int) -> int:
    """Bytes of one sample's cache when layer ``l`` holds ``lengths[l]`` tokens.

    Args:
        shape: sizes of the decoder, or of its cache alone.
        lengths: tokens (visual and text) in the cache of each layer.
        element_size: bytes per number: 2 for bfloat16 and float16, 4 for float32.

    Raises:
        PrunusError: not one length per decoder layer.
    """
    if len(lengths) != shape.layers:
        raise PrunusError(f"{len(lengths)} lengths given for {shape.layers} decoder layers")
    if isinstance(shape, CacheShape) and shape.widths:
        held = sum(n * width for n, width in zip(lengths, shape.widths, strict=True))
        return 2 * held * element_size
    return 2 * sum(lengths) * shape.kv_heads * shape.head_dim * element_size
