"""Bytes of the key/value cache."""

from __future__ import annotations

from collections.abc import Sequence

from prunus.errors import PrunusError
from prunus.families.shapes import CacheShape, DecoderShape, plain_cache

_FLOAT32 = 4


def kv_bytes(shape: DecoderShape | CacheShape, lengths: Sequence[int], element_size: int) -> int:
    """Bytes of one sample's cache when layer ``l`` holds ``lengths[l]`` tokens.

    Args:
        shape: what the cache of each layer has, or sizes of a decoder that are alike in all.
        lengths: tokens (visual and text) in the cache of each layer.
        element_size: bytes per number: 2 for bfloat16 and float16, 4 for float32.

    Raises:
        PrunusError: not one length per decoder layer, a decoder whose layers differ.
    """
    if isinstance(shape, DecoderShape):
        if shape.mixers:
            raise PrunusError("layers of this decoder differ: give the CacheShape of its family")
        shape = plain_cache(shape.layers, shape.kv_heads, shape.head_dim)
    if len(lengths) != shape.layers:
        raise PrunusError(f"{len(lengths)} lengths given for {shape.layers} decoder layers")
    held = sum(n * each for n, each in zip(lengths, shape.held, strict=True))
    return (held + sum(shape.states)) * element_size + sum(shape.floats) * _FLOAT32
